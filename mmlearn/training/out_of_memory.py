"""Where a training runs out of memory: what to lower, and to what, by the planner's count."""

import inspect
import os
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from mmlearn.data.batches import batches_of
from mmlearn.data.fields import Batch

if TYPE_CHECKING:
    from mmlearn.training.counting import Count

MARGIN = 1.15  # a measured peak is within 15 % of what is counted
LOOKED_AT = 8  # batches, for how long samples are and what tasks there are


def tells_what_fits(fit: Callable) -> Callable:
    """``fit(system, …)`` that answers ``torch.OutOfMemoryError`` with a ``ValueError`` that says what would fit."""

    @wraps(fit)
    def telling(system: nn.Module, *given: Any, **named: Any) -> Any:
        try:
            return fit(system, *given, **named)
        except RuntimeError as error:
            if not (isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)):
                raise
            asked = inspect.signature(fit).bind(system, *given, **named)
            asked.apply_defaults()
            raise ValueError(f"Out of memory: {_advice(asked.arguments)}") from error

    return telling


def _advice(asked: Mapping[str, Any]) -> str:
    """What to change of these arguments of :func:`~mmlearn.training.fit`."""
    batch, options = asked["batch_size"], asked["options"]
    world = dist.get_world_size() if dist.is_initialized() else 1
    try:
        counted, batch = _counted(asked, world)
    except Exception:  # whatever it is: that memory has run out is what must be told
        return f"lower the batch size from {batch}, to {max(world, batch // 2 // world * world)} at first."
    ways = dict(recompute=options.recompute, chunk=options.chunk, shard=options.shard)
    return what_fits(counted, device_bytes(), batch, world, **ways)


def what_fits(
    counted: "Count", room: int, batch: int, world: int = 1, *, recompute: bool, chunk: int | None, shard: bool = False
) -> str:
    """What would fit a device of ``room`` bytes, where a batch of ``batch`` on ``world`` of them did not; one line.

    Of several processes each has counted what it has itself: its own samples, with the columns that others bring.
    """
    from mmlearn.training.plan import GIB, memory

    def needed(batch: int, way: str, chunk: int | None = None, shard: bool = shard) -> float:
        own = memory(counted, batch // world, 1, chunk or batch // world)[way]
        held = memory(counted, batch, world)["sharded"] if shard else own
        return MARGIN * (own["all"] + sum(held[name] - own[name] for name in ("weights", "gradients", "optimiser")))

    def largest(way: str, chunk: int | None = None, room: float = room) -> int:
        """The largest batch that fits, of those that processes can share; 0 where none does."""
        return world * bisect_right(range(1, batch // world + 1), room, key=lambda b: needed(b * world, way, chunk))

    chunk = chunk if counted.towers else None
    way = "in chunks" if chunk else "recomputed" if recompute else "plain"
    need = needed(batch, way, chunk)
    needs = f"needs {need / MARGIN / GIB:.1f} GiB, and the device has {room / GIB:.1f}"
    has = f"by the planner's count a batch of {batch} {needs}"
    if need <= room:  # and it did not fit
        less = max(largest(way, chunk, need / MARGIN), world)
        return f"{has}: another program may hold some (see nvidia-smi); end it, or lower the batch size to {less}."
    fitting, ways = largest(way, chunk), []
    if fitting:
        ways.append(f"lower the batch size to {fitting}")
    if way == "plain" and (again := largest("recomputed")) > fitting:
        ways.append("recompute" if again == batch else f"recompute, with a batch size of {again}")
    if world > 1 and not shard and needed(batch, way, chunk, shard=True) <= room:
        ways.append("cut the weights among processes (shard)")
    sizes = [2**k for k in range(12, -1, -1) if 2**k < (chunk or batch // world)] if counted.towers else []
    if smaller := next((k for k in sizes if needed(batch, "in chunks", k) <= room), None):
        ways.append(f"read in chunks of {smaller} (chunk)")
    return (
        f"{has}. What fits: {', '.join(ways)}." if ways else f"{has}. No batch is small enough: take a smaller preset."
    )


def device_bytes() -> int:
    """The memory that this process can have of the device that it trains on: what it has, and what nobody has."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _counted(asked: Mapping[str, Any], world: int) -> "tuple[Count, int]":
    """The training as it was asked for, on samples as long as those of the first batches; and the rows of a batch."""
    from mmlearn.training.counting import count_training

    options = asked["options"]
    drawing = dict(seed=asked["seed"], lengths=options.lengths, world=world)
    batches = batches_of(asked["data"], asked["collate"], asked["batch_size"], **drawing)
    alike: dict[tuple[str, ...], list[Batch]] = {}  # a batch of one task has other entries than one of another
    for batch in (batches[k] for k in range(LOOKED_AT)):
        alike.setdefault(tuple(batch), []).append(batch)
    learned = dict(precision=options.precision, optimizer=asked["optimizer"])
    longest = lambda b: [_as_long(given, b) for given in alike.values()]  # noqa: E731
    counted = count_training(asked["system"], asked["turns"], longest, **learned)
    return counted, world * len(next(iter(batch.values())))


def _as_long(batches: Sequence[Batch], b: int) -> Batch:
    """A batch of b rows, each entry as long as the longest of these."""
    shapes = {name: map(max, zip(*(batch[name].shape[1:] for batch in batches))) for name in batches[0]}
    return {name: torch.empty((b, *shape), dtype=batches[0][name].dtype) for name, shape in shapes.items()}
