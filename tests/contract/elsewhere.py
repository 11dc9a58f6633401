"""Devices that this machine does not have, on which a tensor that was left on the CPU is found.

PyTorch's fake tensors say that they are on a GPU and have no values, so they stop where a program looks at one. For
systems that do, there are tensors here that have values and only say that they are on another device.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

# Where fake tensors stop: they are asked for their values, or what NVIDIA's libraries compute is not known of them.
STOPPED = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
    torch.AcceleratorError,
)
NO_BACKWARD = "hasPrimaryContext"  # so says PyTorch where a gradient is taken on a GPU that is not there
# So says torch.autocast of devices that it does not know.
NO_SUCH_AUTOCAST = ("unsupported autocast device_type", "unsupported scalarType")
NO_BF16_LSTM = "could not create a primitive descriptor for the LSTM"  # so says PyTorch on processors without bf16
# Some of whose compiled backward pass is looked at as well, which takes as long again as all else of the contract.
DIFFERENTIATED = {"albef", "bert", "clip", "gpt2", "wav2vec2"}
THERE = torch.device("meta")
aten = torch.ops.aten
BETWEEN = {aten._to_copy.default, aten.copy_.default}  # these move tensors from one device to another
INDEXED = {  # tensors on a GPU may have indices on the CPU
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
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
def fake_gpu(system: nn.Module, batch: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Within, the system and the batch that is handed out are on a GPU that is not there, and have no values."""
    with FakeTensorMode(allow_fallback_kernels=False), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # by PyTorch's own LSTM

        def there(x: Tensor) -> Tensor:
            return torch.empty(x.shape, dtype=x.dtype, device="cuda")

        change_tensors(system, there)
        yield {name: there(value) for name, value in batch.items()}


@contextmanager
def other_device(system: nn.Module, batch: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Within, the system and the batch that is handed out say that they are on another device than they are."""
    # In inference mode PyTorch does not take such tensors as these.
    with Pretending(), Made(), patch("torch.inference_mode", torch.no_grad):
        change_tensors(system, lambda x: Elsewhere(x.detach()))
        yield {name: Elsewhere(value) for name, value in batch.items()}


class Elsewhere(Tensor):
    """A tensor whose numbers are on the CPU, and that says that they are not."""

    @staticmethod
    def __new__(cls, here: Tensor):
        return Tensor._make_wrapper_subclass(
            cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype, device=THERE
        )

    def __init__(self, here: Tensor):
        self.here = here

    def tolist(self) -> Any:
        return self.here.tolist()

    def cpu(self) -> Tensor:
        return self.here

    def new_tensor(self, values: Any, **options: Any) -> Tensor:
        return Elsewhere(self.here.new_tensor(values, **options))

    def __repr__(self) -> str:
        return f"Elsewhere({self.here})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), options: Any = None) -> Any:
        return run(function, args, options or {})


class Pretending(TorchDispatchMode):
    """What is made on the other device is on the CPU, and does not say so."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), options: Any = None) -> Any:
        return run(function, args, options or {})


class Made(TorchFunctionMode):
    """So is what ``torch.tensor`` makes there, which the mode above does not see."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), options: Any = None) -> Any:
        options = dict(options or {})
        if function in (torch.tensor, torch.as_tensor) and options.get("device") == THERE:
            return Elsewhere(function(*args, **options | {"device": "cpu"}))
        return function(*args, **options)


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
