"""Where a training runs out of memory: what to lower, and to what, by the planner's count."""

import inspect
import os
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
    asked = {**asked, **vars(asked["options"])}
    batch, world = asked["batch_size"], dist.get_world_size() if dist.is_initialized() else 1
    try:
        counted, batch = _counted(asked, world)
    except Exception:  # whatever it is: that memory has run out is what must be told
        return f"lower the batch size from {batch}, to {max(world, batch // 2 // world * world)} at first."
    ways = {name: asked[name] for name in ("recompute", "chunk", "shard")}
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
        return own["all"] + sum(held[name] - own[name] for name in ("weights", "gradients", "optimiser"))

    def largest(way: str, chunk: int | None = None, room: float = room) -> int:
        """The largest batch that fits, of those that processes can share; 0 where none does."""
        none, some = 0, batch // world + 1  # of each device: what fits, and what is above it
        while some - none > 1:
            middle = (none + some) // 2
            fits = needed(middle * world, way, chunk) * MARGIN <= room
            none, some = (middle, some) if fits else (none, middle)
        return none * world

    chunk = chunk if counted.towers else None
    way = "in chunks" if chunk else "recomputed" if recompute else "plain"
    need = needed(batch, way, chunk)
    has = f"by the planner's count a batch of {batch} needs {need / GIB:.1f} GiB, and the device has {room / GIB:.1f}"
    if need * MARGIN <= room:  # and it did not fit
        less = max(largest(way, chunk, need), world)
        return f"{has}: another program may hold some (see nvidia-smi); end it, or lower the batch size to {less}."
    fitting, ways = largest(way, chunk), []
    if fitting:
        ways.append(f"lower the batch size to {fitting}")
    if way == "plain" and (again := largest("recomputed")) > fitting:
        ways.append("recompute" if again == batch else f"recompute, with a batch size of {again}")
    if world > 1 and not shard and needed(batch, way, chunk, shard=True) * MARGIN <= room:
        ways.append("cut the weights among processes (shard)")
    sizes = [2**k for k in range(12, -1, -1) if 2**k < (chunk or batch // world)] if counted.towers else []
    if smaller := next((k for k in sizes if needed(batch, "in chunks", k) * MARGIN <= room), None):
        ways.append(f"read in chunks of {smaller} (chunk)")
    if not ways:
        return f"{has}. No batch is small enough: take a smaller preset."
    return f"{has}. What fits: {', or '.join(ways)}."


def device_bytes() -> int:
    """The memory that this process can have of the device that it trains on: what it has, and what nobody has."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _counted(asked: Mapping[str, Any], world: int) -> "tuple[Count, int]":
    """The training as it was asked for, on samples as long as those of the first batches; and the rows of a batch."""
    from mmlearn.training.counting import count_training

    options = dict(seed=asked["seed"], lengths=asked["lengths"], world=world)
    batches = batches_of(asked["data"], asked["collate"], asked["batch_size"], **options)
    alike: dict[tuple[str, ...], list[Batch]] = {}  # a batch of one task has other entries than one of another
    for batch in (batches[k] for k in range(LOOKED_AT)):
        alike.setdefault(tuple(batch), []).append(batch)
    learned = dict(precision=asked["precision"], optimizer=asked["optimizer"])
    counted = count_training(
        asked["system"], asked["turns"], lambda b: [_as_long(given, b) for given in alike.values()], **learned
    )
    return counted, world * len(next(iter(batch.values())))


def _as_long(batches: Sequence[Batch], b: int) -> Batch:
    """A batch of b rows, each entry as long as the longest of these."""
    found = {}
    for name, x in batches[0].items():
        _, *longest = map(max, zip(*(batch[name].shape for batch in batches)))
        found[name] = torch.empty((b, *longest), dtype=x.dtype)
    return found
