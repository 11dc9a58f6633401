"""What a system and a step of its training hold and compute, counted before anything is trained.

A step is run on fake tensors, which have a shape and no numbers, so that the largest model is counted in seconds. Where
a loss goes by numbers, these are assumed: every count is 1, every condition holds, an eighth of all positions is asked,
as of hidden words, and packed texts are as long as there are positions.
"""

import copy
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor, nn

# PyTorch has no public tensors that have a device and a precision, and no numbers: "meta" ones know no autocast.
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from mmlearn.data.fields import Batch, size
from mmlearn.data.packed import check_packs, share_rows
from mmlearn.evaluation.cost import count_flops
from mmlearn.layers import TransformerBlock
from mmlearn.layers.config import Config
from mmlearn.recipes.recipe import OptimizerStep, Recipe
from mmlearn.suggestions import suggest
from mmlearn.training.memory import encode_in_chunks, recompute_blocks
from mmlearn.training.optimizers import build_optimizers

aten = torch.ops.aten
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Count:
    """What a system holds, and what a step on this batch takes."""

    parameters: int
    trained: int
    flops: float  # of a step, on each device
    memory: dict[str, dict[str, float]]  # bytes on each device, by the way of training and by what they hold
    batch: int  # samples, of all devices
    devices: int
    precision: str
    sample: float  # bytes of a sample in a batch


def count(
    recipe: Recipe,
    config: Config,
    batch: int,
    *,
    devices: int = 1,
    chunk: int = 1024,
    stage: str | None = None,
    text_length: int = 77,
    pack: int | None = None,
    **learned: str,
) -> Count:
    """Count a system and a step of its training, in its first stage unless another is named.

    Texts have ``text_length`` tokens and those that stand for an image, or as many as the system takes; with ``pack``
    as many as fit share a row of so many tokens. The rest is as for :func:`count_training`, and so is ``ValueError``;
    also for a batch that the devices cannot share, and for rows that no text fits into, or that the system cannot read.
    """
    if min(batch, devices) < 1 or batch % devices:
        raise ValueError(
            f"{devices} devices cannot share a batch of {batch} equally; take a multiple of them, at least 1 each."
        )
    config, holds = recipe.for_examples(config), recipe.holds()[0]
    longest = text_length + getattr(config, "num_image_tokens", 0)  # which stand among words
    t = min(longest, size(config, "max_length", longest))
    examples = list(recipe.examples(config, b=2, stage=stage))
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*copying from a non-meta parameter")  # of a part that comes with weights
        system = recipe.make(config).train()
        batches = [grown(example, holds, batch // devices, t) for example in examples]
        if pack is not None:
            batches = [_in_rows(one, system, pack) for one in batches]
    turns = recipe.stage(stage).optimizer_steps
    return count_training(system, turns, batches, samples=batch // devices, devices=devices, chunk=chunk, **learned)


def count_training(
    system: nn.Module,
    optimizer_steps: Sequence[OptimizerStep],
    batches: Sequence[Batch],
    *,
    samples: int | None = None,
    devices: int = 1,
    chunk: int = 1024,
    precision: str = "no",
    optimizer: str = "adamw",
) -> Count:
    """Count a system that is there, on any device, and a step of its training in these ``optimizer_steps``.

    ``batches`` are those of one device, one for each task, of so many ``samples``, or as many as there are rows; their
    numbers do not count. Its memory is counted

    - *plain*;
    - *recomputed*: of each transformer block only its input is kept, as
      :func:`~mmlearn.training.memory.recompute_blocks` has it;
    - *in chunks*, where that is possible: the towers of a contrastive system read ``chunk`` samples at a time, as
      :func:`~mmlearn.training.memory.encode_in_chunks` has it;
    - *sharded*: each device holds its part of weights, gradients and optimiser, and all weights of one block and of
      what is in no block, as :func:`~mmlearn.training.distributed.sharded` has it.

    ``ValueError`` for a precision or an optimiser that there is not, a chunk below 1, and for a system whose losses
    need more numbers than are assumed.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"There is no precision {precision!r}; {suggest(precision, PRECISIONS)}.")
    if chunk < 1:
        raise ValueError(f"A chunk has at least one row, got {chunk}.")
    b = samples or len(next(iter(batches[0].values())))
    flops, state, most, found = 0, 0, 0, []
    with _without_numbers(type(system).__name__, devices):
        system, batches = _fake(system), [{name: _empty(x) for name, x in batch.items()} for batch in batches]
        named = dict(system.named_parameters())
        moved = {turn: [named[name] for name in turn.trained_names(system)] for turn in optimizer_steps}
        for turn, parameters in moved.items():
            system.requires_grad_(False).zero_grad()  # what the turn does not move has no gradient
            for parameter in parameters:
                parameter.requires_grad_(True).grad = torch.empty_like(parameter)
            state += _state_bytes(build_optimizers(system, optimizer, learning_rate=1e-3, weight_decay=0.1))
            most = max(most, _numbers(parameters))  # so many gradients are held at a time
            for batch in batches:
                flops += count_flops(partial(_step, system, turn.loss, batch))
                found.append(_activations(system, turn.loss, batch, PRECISIONS[precision], chunk))
    blocks = [set(part.parameters()) for part in system.modules() if isinstance(part, TransformerBlock)]
    largest, outside = max(map(_numbers, blocks), default=0), _numbers(set(named.values()).difference(*blocks))
    whole: dict[str, float] = {"weights": 4 * _numbers(named.values()), "gradients": 4 * most, "optimiser": state}
    part = {name: held / devices for name, held in whole.items()}
    part["weights"] += 4 * (largest + outside)
    ways = [way for way in found[0] if all(way in held for held in found)]
    memory: dict[str, dict[str, float]] = {
        way: whole | {"activations": max(held[way] for held in found)} for way in ways
    }
    memory["sharded"] = part | {"activations": memory["plain"]["activations"]}
    return Count(
        parameters=_numbers(named.values()),
        trained=_numbers(set().union(*moved.values())),
        flops=flops / len(batches),
        memory={way: held | {"all": sum(held.values())} for way, held in memory.items()},
        batch=b * devices,
        devices=devices,
        precision=precision,
        sample=sum(x.nbytes for x in batches[0].values()) / b,
    )


def grown(batch: Batch, holds: Mapping[str, str], b: int, t: int) -> Batch:
    """A batch without numbers, of b samples whose texts have t tokens, and their translations u = t."""
    sizes = {"b": b, "t": t, "u": t}

    def shape(name: str, x: Tensor) -> list[int]:
        return [sizes.get(axis, n) for axis, n in zip(holds[name].split()[1:], x.shape)]

    return {name: torch.empty(shape(name, x), dtype=x.dtype) for name, x in batch.items()}


def _in_rows(batch: Batch, system: nn.Module, length: int) -> Batch:
    """A batch without numbers whose texts share rows, as :func:`mmlearn.data.packed.pack` has it; the last is full."""
    (b, t), image = batch["tokens"].shape, batch.get("image", torch.empty(0))
    check_packs(system, type(system).__name__)
    share_rows([t], length)  # refuses a text that fits into no row
    several = length // t
    rows = -(-b // several)
    found = {name: x.new_empty(rows, several * t) for name, x in batch.items() if x.shape == (b, t)}
    return found | {"conversation": found["tokens"], "image": image.new_empty(rows, several, *image.shape[1:])}


def _step(system: nn.Module, loss: str, batch: Batch, dtype: torch.dtype | None = None) -> None:
    """A forward and a backward pass, in this precision or else in float32."""
    with torch.autocast("cpu", dtype, dtype is not None):
        total = sum(getattr(system, loss)(batch).values())
    total.backward()


def _activations(system: nn.Module, loss: str, batch: Batch, dtype: torch.dtype | None, chunk: int) -> dict[str, int]:
    """Bytes that a step holds at its worst moment beside weights, gradients and the batch, by the way of training."""
    gradients = [x.grad for x in system.parameters() if x.grad is not None]
    before = *system.parameters(), *system.buffers(), *gradients, *batch.values()
    ways: dict[str, AbstractContextManager] = {"plain": nullcontext(), "recomputed": recompute_blocks(system)}
    if loss == "loss":
        ways["in chunks"] = _one_chunk(system, chunk)
    found = {}
    for way, within in ways.items():
        with suppress(ValueError), within, Live(before) as live:  # of towers that cannot read in chunks
            _step(system, loss, batch, dtype)
            found[way] = live.most
    return found


@contextmanager
def _one_chunk(system: nn.Module, size: int) -> Iterator[None]:
    """Towers read one chunk as :func:`encode_in_chunks` has each; the embeddings of all others are there at once."""

    def encode_one(encode: Callable, *inputs: Any) -> Any:
        rows = len(inputs[0])
        output = encode(*(x[:size] if isinstance(x, Tensor) else x for x in inputs))
        others = lambda x: x.new_empty(max(0, rows - size), *x.shape[1:])  # noqa: E731
        return tree_map_only(Tensor, lambda x: torch.cat([x, others(x)]), output)

    with encode_in_chunks(system, size):
        for name in [name for name in dir(type(system)) if name.startswith("encode_")]:
            setattr(system, name, partial(encode_one, getattr(system, name)))
        yield


class Live(TorchDispatchMode):
    """The bytes of all storages that were made within and still live: now, and at most until now.

    Those of the tensors ``without`` were made before, and a view of them takes nothing.
    """

    def __init__(self, without: Iterable[Tensor] = ()):
        super().__init__()
        self.now = self.most = 0
        self.known = weakref.WeakSet(x.untyped_storage() for x in without)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), options: Any = None) -> Any:
        output = function(*args, **options or {})
        for x in tree_leaves(output):
            if isinstance(x, Tensor) and (storage := x.untyped_storage()) not in self.known:
                self.known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self.end, storage.nbytes())
        self.most = max(self.most, self.now)
        return output

    def end(self, size: int) -> None:
        """A storage of this size lives no longer."""
        self.now -= size


class _Assumed(TorchDispatchMode):
    """Answers what fake tensors cannot: each number is 1, and an eighth of all positions is chosen."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), options: Any = None) -> Any:
        if function is aten._local_scalar_dense.default:
            return True if args[0].dtype == torch.bool else 1.0 if args[0].is_floating_point() else 1
        if function is aten.nonzero.default:
            return _positions(args[0])
        if function is aten.exponential_.default:  # with a generator it has no fake one
            return args[0]
        if function in INDEXING:
            indices = [[x] if x is None or x.dtype != torch.bool else _positions(x).unbind(1) for x in args[1]]
            args = args[0], [x for each in indices for x in each], *args[2:]
        return function(*args, **options or {})


def _positions(chosen: Tensor) -> Tensor:
    return torch.empty((chosen.numel() // 8, chosen.ndim), dtype=torch.int64)


class _Unpacked(TorchFunctionMode):
    """Packs texts, reads them by an LSTM and unpacks them as if each was as long as there are positions."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), options: Any = None) -> Any:
        if function == torch._VF._pack_padded_sequence:
            x, _, batch_first = args
            x = x.transpose(0, 1) if batch_first else x  # (t, b, d)
            return x.flatten(0, 1), torch.full((len(x),), x.shape[1])
        if function == torch._VF._pad_packed_sequence:
            x = args[0].unflatten(0, (len(args[1]), -1))
            return x.transpose(0, 1) if args[2] else x, torch.full((x.shape[1],), len(x))
        if function == torch._VF.lstm and isinstance(args[1], Tensor):
            x, sizes, states, *layers = args
            x = x.unflatten(0, (len(sizes), -1))
            y, *last = function(x, [state.expand(-1, x.shape[1], -1) for state in states], *layers, False)
            return y.flatten(0, 1), *last
        return function(*args, **options or {})


def _empty(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype)


def _fake(system: nn.Module) -> nn.Module:
    """A copy whose tensors have shapes alone, on the CPU, and take no memory. Within fake tensors."""
    instead: dict[int, Any] = {id(x): _empty(x) for x in system.buffers()}
    instead |= {id(x): nn.Parameter(_empty(x), x.requires_grad) for x in system.parameters()}
    return copy.deepcopy(system, instead)


def _state_bytes(optimizers: Iterable[torch.optim.Optimizer]) -> int:
    """What optimisers hold after their first step."""
    for optimizer in optimizers:
        optimizer.step()
    states = [state for optimizer in optimizers for state in optimizer.state.values()]
    return sum(x.nbytes for state in states for x in state.values() if isinstance(x, Tensor))


def _numbers(tensors: Iterable[Tensor]) -> int:
    return sum(x.numel() for x in tensors)


@contextmanager
def _without_numbers(system: str, devices: int) -> Iterator[None]:
    """Within this block new tensors are fake, and this is one of so many processes, whose others bring no numbers."""
    nothing = lambda *given: None  # noqa: E731
    silent: dict[str, Any] = dict(is_initialized=lambda: True, get_world_size=lambda: devices, get_rank=lambda: 0)
    others = patch.multiple(dist, **silent, all_gather=nothing, all_reduce=nothing) if devices > 1 else nullcontext()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), _Assumed(), _Unpacked(), others:
            yield
    except RuntimeError as error:  # of fake tensors, or of a layer whose input has another shape
        says = f"{system} cannot be counted: its loss needs the numbers of a real batch, or another shape ({error})."
        raise ValueError(says) from error
