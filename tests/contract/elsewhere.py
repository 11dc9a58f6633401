"""A device that this machine does not have, on which a tensor that was left on the CPU is found, and waits are counted.

PyTorch's fake tensors say that they are on a GPU and have no values, so they stop where a program looks at one. Those
here have values, and only say that they are on another device.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

import mmlearn
from mmlearn.objectives import draws

NO_BF16_LSTM = "could not create a primitive descriptor for the LSTM"  # so says PyTorch on processors without bf16
# Some of whose compiled backward pass is looked at as well, which takes as long again as all else of the contract.
DIFFERENTIATED = {"albef", "bert", "clip", "gpt2", "wav2vec2"}
THERE = torch.device("meta")
LIBRARY = f"{Path(mmlearn.__file__).parent}/"
aten = torch.ops.aten
BETWEEN = {aten._to_copy.default, aten.copy_.default}  # these move tensors from one device to another
INDEXED = {  # tensors on a GPU may have indices on the CPU
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
# Where a GPU and its host wait for each other: the host needs a value, or a size that depends on values. These are what
# torch.cuda.set_sync_debug_mode names; an index that is a mask, and what moves between devices, are found below.
LOOKS = {
    aten._local_scalar_dense.default: "item",
    aten.bincount.default: "bincount",
    aten.equal.default: "equal",
    aten.masked_select.default: "masked_select",
    aten.multinomial.default: "multinomial",
    aten.nonzero.default: "nonzero",
    aten.repeat_interleave.Tensor: "repeat_interleave",
    aten._unique2.default: "unique",
    aten.unique_consecutive.default: "unique_consecutive",
    aten.unique_dim.default: "unique",
}
PACKED = {  # lengths of sequences are always on the CPU
    aten._pack_padded_sequence.default,
    aten._pad_packed_sequence.default,
    aten.lstm.data,
}


def change_tensors(system: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Put ``change(tensor)`` in the place of each parameter and buffer."""
    for part in system.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = nn.Parameter(change(value), requires_grad=value.requires_grad)
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = change(value)


@contextmanager
def other_device(system: nn.Module, batch: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Within, the system and the batch that is handed out say that they are on another device than they are.

    ``Elsewhere.waits`` then says what has waited for it, and where.
    """
    autocast, generator = torch.autocast, draws.generator_on_device_of

    def autocast_here(device: str, *given: Any, **options: Any) -> Any:
        return autocast("cpu" if device == THERE.type else device, *given, **options)

    def generator_there(x: Tensor, seed: int) -> torch.Generator:
        return GeneratorElsewhere().manual_seed(seed) if isinstance(x, Elsewhere) else generator(x, seed)

    with (
        Pretending(),
        Made(),
        patch("torch.inference_mode", torch.no_grad),  # in which PyTorch does not take such tensors as these
        patch("torch.autocast", autocast_here),  # which PyTorch has not on this device
        patch.object(draws, "generator_on_device_of", generator_there),
    ):
        change_tensors(system, lambda x: Elsewhere(x.detach()))
        Elsewhere.waits.clear()
        yield {name: Elsewhere(value) for name, value in batch.items()}


class Elsewhere(Tensor):
    """A tensor whose numbers are on the CPU, and that says that they are not."""

    waits: list[str] = []  # where the CPU and this device have waited for each other

    @staticmethod
    def __new__(cls, here: Tensor):
        return Tensor._make_wrapper_subclass(
            cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype, device=THERE
        )

    def __init__(self, here: Tensor):
        self.here = here

    def tolist(self) -> Any:
        waits("tolist")
        return self.here.tolist()

    def cpu(self) -> Tensor:
        waits("cpu")
        return self.here

    def new_tensor(self, values: Any, **options: Any) -> Tensor:
        waits("new_tensor")
        return Elsewhere(self.here.new_tensor(values, **options))

    def __repr__(self) -> str:
        return f"Elsewhere({self.here})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), options: Any = None) -> Any:
        return run(function, args, options or {})


class GeneratorElsewhere(torch.Generator):
    """Draws on the CPU, and says that it does not."""

    device = THERE


class Pretending(TorchDispatchMode):
    """What is made on the other device is on the CPU, and does not say so."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), options: Any = None) -> Any:
        return run(function, args, options or {})


class Made(TorchFunctionMode):
    """So is what ``torch.tensor`` makes there, which the mode above does not see."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), options: Any = None) -> Any:
        options = dict(options or {})
        if function in (torch.tensor, torch.as_tensor) and options.get("device") == THERE:
            waits("tensor")
            return Elsewhere(function(*args, **options | {"device": "cpu"}))
        return function(*args, **options)


def waits(kind: str) -> None:
    """Remember that something has waited, and the line of the library that was the cause of it."""
    frame: Any = sys._getframe(1)
    while frame.f_back and not frame.f_code.co_filename.startswith(LIBRARY):
        frame = frame.f_back
    Elsewhere.waits.append(f"{kind} in {frame.f_code.co_filename.removeprefix(LIBRARY)}:{frame.f_lineno}")


def waiting(function: Any, args: Any, options: dict[str, Any], there: bool) -> Iterator[str]:
    """The waits of one operation, some of whose tensors may be ``there``."""
    if function in BETWEEN:
        to = args[0].device if function is aten.copy_.default else torch.device(options.get("device") or args[0].device)
        came = args[1] if function is aten.copy_.default else args[0]
        if to != came.device and not options.get("non_blocking"):
            yield f"copy to {to}"
    elif there and function in LOOKS:
        yield LOOKS[function]
    elif there and function in INDEXED:  # each mask is asked for its positions, and an index on the CPU comes over
        for index in args[1]:
            if index is not None and (index.dtype == torch.bool or not isinstance(index, Elsewhere)):
                yield "mask as an index" if index.dtype == torch.bool else "index on the CPU"


def run(function: Any, args: Any, options: dict[str, Any]) -> Any:
    """One operation on the CPU. ``RuntimeError`` where a real device would refuse to mix its tensors with the CPU's."""
    seen: list[Tensor] = []

    def look(x: Any) -> Any:
        if isinstance(x, Tensor):
            seen.append(x)
        return x.here if isinstance(x, Elsewhere) else x

    args, inner = tree_map(look, (given := args, options))
    there = [x for x in seen if isinstance(x, Elsewhere)]
    here = [x for x in seen if not isinstance(x, Elsewhere) and x.ndim]  # numbers go everywhere
    may_mix = function in BETWEEN | PACKED or (function in INDEXED and isinstance(seen[0], Elsewhere))
    if there and here and not may_mix:
        raise RuntimeError(f"{function} mixes a tensor on {THERE} with one of {tuple(here[0].shape)} on the CPU.")
    for kind in waiting(function, given, options, bool(there)):
        waits(kind)
    if isinstance(options.get("generator"), GeneratorElsewhere) and not there and options.get("device") != THERE:
        raise RuntimeError(f"{function} draws on the CPU with a generator on {THERE}.")
    if (device := options.get("device")) is not None:
        inner["device"] = torch.device("cpu")
    goes = bool(there) if device is None else torch.device(device).type == THERE.type
    known = {id(x.here if isinstance(x, Elsewhere) else x): x for x in seen}  # what is changed in place stays itself

    def wrap(x: Any) -> Any:
        if not isinstance(x, Tensor) or (function in PACKED and x.dtype == torch.int64):
            return x
        return known[id(x)] if id(x) in known else Elsewhere(x) if goes else x

    found = tree_map(wrap, function(*args, **inner))
    if there and torch.Tag.inplace_view in function.tags:  # which turns the tensor itself, as a GRU does at its end
        with no_dispatch():
            function(*given, **options)
    return found
