"""What a system and a step of its training hold and compute, counted before anything is trained.

Nothing is computed: fake tensors have a shape and no numbers, so that the largest model is counted in seconds. Where a
loss goes by numbers, these are assumed: every count is 1, every condition holds, an eighth of all positions is asked,
as of hidden words, and packed texts are as long as there are positions.

A step is counted for a few small batches. What it takes is a polynomial of the batch, because each sample costs as much
as any other, and in a contrastive loss so does each pair of samples:

.. math:: f(b) = c_0 + c_1 b + c_2 b^2

Where several devices share a batch of B samples, each has b of them, and of such a loss the columns of all:

.. math:: f(b, B) = c_0 + c_1 b + c_3 (B - b) + c_4 b B
"""

import copy
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

# PyTorch has no public tensors that have a device and a precision, and no numbers: "meta" ones know no autocast.
from torch._subclasses import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmlearn.data.fields import Batch, size
from mmlearn.evaluation.cost import count_flops
from mmlearn.layers import TransformerBlock
from mmlearn.layers.config import Config
from mmlearn.recipes.recipe import OptimizerStep, Recipe
from mmlearn.suggestions import suggest
from mmlearn.training.memory import around_blocks, encode_in_chunks
from mmlearn.training.optimizers import build_optimizers

aten = torch.ops.aten
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
BATCHES = 8, 16, 32  # for which a step is counted
SEVERAL = 4  # processes, where a loss has pairs of samples
PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Polynomial:
    """c₀ + c₁ b + c₂ b² on one device; see the module for several."""

    constant: float
    linear: float
    square: float
    columns: float = 0.0  # c₃
    rows: float | None = None  # c₄; None where each device has all pairs of samples

    @classmethod
    def through(cls, points: Mapping[int, float]) -> "Polynomial":
        """The one through three points."""
        (x, fx), (y, fy), (z, fz) = ((Fraction(b), Fraction(value)) for b, value in points.items())
        first, second = (fy - fx) / (y - x), (fz - fy) / (z - y)
        square = (second - first) / (z - x)
        linear = first - square * (x + y)
        return cls(*map(float, (fx - linear * x - square * x * x, linear, square)))

    def through_several(self, points: Mapping[int, float]) -> "Polynomial":
        """The same, with what goes through two points of one device of ``SEVERAL``."""
        (x, fx), (y, fy) = ((b, (value - self.constant) / b) for b, value in points.items())
        square = (fy - fx) / (y - x)
        # Of rows and columns, at most two matrices instead of one; of whole matrices, the square of the devices.
        rows = square / SEVERAL if square < 0.75 * SEVERAL**2 * self.square else None
        return replace(self, columns=(fx - square * x - self.linear) / (SEVERAL - 1), rows=rows)

    def pairs(self, batch: int, devices: int) -> float:
        """What pairs of samples take on each device, and the columns that others bring."""
        each = self.square if devices == 1 or self.rows is None else self.rows / devices
        return each * batch**2 + self.columns * (batch - batch / devices)

    def shared(self, batch: int, devices: int) -> float:
        """Its value on each of several devices."""
        return self.constant + self.linear * batch / devices + self.pairs(batch, devices)


class Saved(NamedTuple):
    """Bytes that a forward pass keeps for the backward pass: of one batch a number, of any a :class:`Polynomial`."""

    total: Any
    blocks: Any  # of these, what is kept within transformer blocks
    largest_block: Any
    inputs: Any  # of all transformer blocks: what is kept where their forward pass is done again


@dataclass(frozen=True)
class Count:
    """What a system and a step of its training hold and compute."""

    parameters: int
    trained: int
    moved: int  # of these, in the turn that moves most: so many gradients are held at a time
    state: int  # bytes of the optimisers
    block: int  # parameters of the largest transformer block
    flops: Polynomial  # of a step
    saved: Saved
    passing: float  # bytes a sample that live at the worst moment and are not kept, such as the gradient of logits
    sample: int  # bytes of a sample in a batch
    towers: bool  # whether they can read in chunks
    outside: int = 0  # parameters that are in no transformer block


def count(
    recipe: Recipe,
    config: Config,
    *,
    precision: str = "no",
    optimizer: str = "adamw",
    stage: str | None = None,
    text_length: int = 77,
) -> Count:
    """Count a system and its training, in its first stage unless another is named.

    Texts have ``text_length`` tokens, or as many as the system takes at most. ``ValueError`` for a precision or an
    optimiser that there is not, and for a system whose losses need more numbers than are assumed.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"There is no precision {precision!r}; {suggest(precision, PRECISIONS)}.")
    config, holds = recipe.for_examples(config), recipe.holds()[0]
    examples = list(recipe.examples(config, b=2, stage=stage))
    t = min(text_length, size(config, "max_length", text_length))
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*copying from a non-meta parameter")  # of a part that comes with weights
        system = recipe.make(config).train()
    optimizer_steps, learned = recipe.stage(stage).optimizer_steps, dict(precision=precision, optimizer=optimizer)
    return count_training(
        system, optimizer_steps, lambda b: [grown(batch, holds, b, t) for batch in examples], **learned
    )


def count_training(
    system: nn.Module,
    optimizer_steps: Sequence[OptimizerStep],
    batches: Callable[[int], list[Batch]],
    *,
    precision: str = "no",
    optimizer: str = "adamw",
) -> Count:
    """Count a system that is there, on any device, and its training in these ``optimizer_steps``.

    ``batches(b)`` are batches of b samples, one for each task, whose numbers do not count. ``ValueError`` as for
    :func:`count`.
    """
    dtype, b = PRECISIONS[precision], BATCHES[-1]
    with FakeTensorMode(allow_non_fake_inputs=True), _Assumed(), _Unpacked(), _told(type(system).__name__):
        system = _without_numbers(system)
        named = dict(system.named_parameters())
        moved = {turn: [named[name] for name in turn.trained_names(system)] for turn in optimizer_steps}
        state, most = _state_bytes(system, moved.values(), optimizer), max(map(_numbers, moved.values()))

        def each(measure: Callable, b: int) -> list[Any]:
            """What is measured of each turn, on a batch of each task; what the turn does not move has no gradient."""
            found = []
            for turn, parameters in moved.items():
                system.requires_grad_(False).zero_grad()
                for parameter in parameters:
                    parameter.requires_grad_(True)
                found += [measure(system, getattr(system, turn.loss), batch, dtype) for batch in batches(b)]
            return found

        def measured(sizes: Iterable[int]) -> tuple[dict[int, float], dict[int, Saved]]:
            """FLOPs of a step and what it keeps, by batch."""
            flops = {b: sum(each(_flops, b)) / len(batches(b)) for b in sizes}
            return flops, {b: Saved(*map(max, zip(*each(_saved, b)))) for b in sizes}

        work, kept = measured(BATCHES)
        # Of what lives, gradients and what was kept are not held at the same time.
        passing = max(each(_live, b)) - max(kept[b].total, 4 * most)
        towers = all(each(_has_towers, BATCHES[0]))
        flops = Polynomial.through(work)
        saved = Saved(*(Polynomial.through(dict(zip(kept, values))) for values in zip(*kept.values())))
        if flops.square and not dist.is_initialized():  # within several processes there is one group already
            with _several():
                work, kept = measured(BATCHES[:2])
            flops = flops.through_several(work)
            saved = saved._replace(total=saved.total.through_several({b: kept[b].total for b in kept}))
    blocks = [set(part.parameters()) for part in system.modules() if isinstance(part, TransformerBlock)]
    return Count(
        parameters=_numbers(named.values()),
        trained=_numbers(set().union(*moved.values())),
        moved=most,
        state=state,
        block=max(map(_numbers, blocks), default=0),
        outside=_numbers(set(named.values()).difference(*blocks)),
        flops=flops,
        saved=saved,
        passing=max(0, passing) / b,
        sample=sum(x.nbytes for x in batches(1)[0].values()),
        towers=towers,
    )


def grown(batch: Batch, holds: Mapping[str, str], b: int, t: int) -> Batch:
    """A batch without numbers, of b samples whose texts have t tokens, and their translations u = t."""
    sizes = {"b": b, "t": t, "u": t}

    def shape(name: str, x: Tensor) -> list[int]:
        return [sizes.get(axis, n) for axis, n in zip(holds[name].split()[1:], x.shape)]

    return {name: torch.empty(shape(name, x), dtype=x.dtype) for name, x in batch.items()}


def _flops(system: nn.Module, loss: Callable, batch: Batch, dtype: torch.dtype | None) -> int:
    """Of a forward and a backward pass."""
    return count_flops(lambda: sum(loss(batch).values()).backward())


def _saved(system: nn.Module, loss: Callable, batch: Batch, dtype: torch.dtype | None) -> Saved:
    """What a forward pass keeps, each storage once; weights and the batch are there in any case."""
    kept = Kept((*system.parameters(), *system.buffers(), *batch.values()))
    within, inputs = [], []

    def block(forward: Callable, x: Tensor, *more: Any, **named: Any) -> Any:
        inputs.append(x.nbytes + sum(y.nbytes for key, y in named.items() if key == "attend_to"))
        before = kept.total
        output = forward(x, *more, **named)
        within.append(kept.total - before)
        return output

    with around_blocks(system, block), kept, torch.autocast("cpu", dtype, dtype is not None):
        loss(batch)
    return Saved(kept.total, sum(within), max(within, default=0), sum(inputs))


def _live(system: nn.Module, loss: Callable, batch: Batch, dtype: torch.dtype | None) -> int:
    """Bytes at the worst moment of a step that hold neither weights nor the batch."""
    system.zero_grad()
    with Live((*system.parameters(), *system.buffers(), *batch.values())) as live:
        with torch.autocast("cpu", dtype, dtype is not None):
            total = sum(loss(batch).values())
        total.backward()
    return live.most


def _has_towers(system: nn.Module, loss: Callable, batch: Batch, dtype: torch.dtype | None) -> bool:
    """Whether they can read in chunks."""
    try:
        with encode_in_chunks(system, 4):
            system.loss(batch)
    except ValueError:
        return False
    return True


class Kept(saved_tensors_hooks):
    """The bytes of all storages that are kept within for a backward pass, but not of those of tensors ``without``."""

    def __init__(self, without: Iterable[Tensor] = ()):
        super().__init__(self._keep, lambda x: x)
        self.total, self.storages = 0, {x.untyped_storage() for x in without}

    def _keep(self, x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage not in self.storages:
            self.storages.add(storage)  # it stays, so that no other takes its address
            self.total += storage.nbytes()
        return x


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


def _without_numbers(system: nn.Module) -> nn.Module:
    """A copy whose tensors have shapes alone, on the CPU, and take no memory. Within fake tensors."""
    instead: dict[int, Any] = {id(x): torch.empty(x.shape, dtype=x.dtype) for x in system.buffers()}
    for x in system.parameters():
        instead[id(x)] = nn.Parameter(torch.empty(x.shape, dtype=x.dtype), x.requires_grad)
    return copy.deepcopy(system, instead)


def _state_bytes(system: nn.Module, trained: Iterable[Sequence[nn.Parameter]], name: str) -> int:
    """What the optimisers of all turns hold after their first step."""
    states: list[Any] = []
    for parameters in trained:
        system.zero_grad()
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        for optimizer in build_optimizers(system, name, learning_rate=1e-3, weight_decay=0.1):
            optimizer.step()
            states += optimizer.state.values()
    return sum(x.nbytes for state in states for x in state.values() if isinstance(x, Tensor))


def _numbers(tensors: Iterable[Tensor]) -> int:
    return sum(x.numel() for x in tensors)


class _Silent(dist.ProcessGroup):
    """A group in which other processes bring no numbers."""

    def allgather(self, *given: Any) -> dist.Work:
        return _Done()

    def allreduce(self, *given: Any) -> dist.Work:
        return _Done()


class _Done(dist.Work):
    def wait(self, *given: Any) -> bool:
        return True


@contextmanager
def _several() -> Iterator[None]:
    """Within this block there are ``SEVERAL`` processes, of which the others are silent."""
    if "silent" not in dist.Backend.backend_list:
        make = lambda store, rank, size, timeout: _Silent(rank, size)  # type: ignore[call-arg]  # noqa: E731
        dist.Backend.register_backend("silent", make, devices=["cpu"])
    dist.init_process_group("silent", rank=0, world_size=SEVERAL, store=dist.HashStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def _told(system: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of fake tensors, or of a layer whose input has another shape
        says = f"{system} cannot be counted: its loss needs the numbers of a real batch, or another shape ({error})."
        raise ValueError(says) from error
