"""Where a training runs out of memory: what to lower, and to what, by the planner's count."""

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmlearn.data.batches import batches_of
from mmlearn.data.fields import Batch

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
    ways = dict(recompute=options.recompute, chunk=options.chunk, shard=options.shard)
    try:
        count, rows = _counting(asked, world)
        return what_fits(count, device_bytes(), rows * world, world, **ways)
    except Exception:  # whatever it is: that memory has run out is what must be told
        return f"lower the batch size from {batch}, to {max(world, batch // 2 // world * world)} at first."


def what_fits(
    count: Callable[[int, int], Any],
    room: int,
    batch: int,
    world: int = 1,
    *,
    recompute: bool,
    chunk: int | None,
    shard: bool = False,
) -> str:
    """What would fit a device of ``room`` bytes, where a batch of ``batch`` on ``world`` of them did not; one line.

    ``count(b, chunk)`` is the :class:`~mmlearn.training.counting.Count` of a step in which each of them has b samples.
    """
    from mmlearn.training.plan import GIB

    own, counted = batch // world, cache(count)
    halves = [own // 2**k for k in range(1, own.bit_length())]
    towers = "in chunks" in counted(own, chunk or own).memory
    usual = "in chunks" if chunk and towers else "recomputed" if recompute else "plain"

    def needed(b: int = own, way: str = usual, chunk: int | None = chunk, shard: bool = shard) -> float:
        ways = counted(b, chunk or b).memory
        held = ways["sharded" if shard else "plain"]
        return held["all"] - held["activations"] + ways[way]["activations"]

    def first(sizes: Iterable[int], need: Callable[[int], float]) -> int | None:
        return next((size for size in sizes if need(size) * MARGIN <= room), None)

    needs = f"needs {needed() / GIB:.1f} GiB, and the device has {room / GIB:.1f}"
    has = f"by the planner's count a batch of {batch} {needs}"
    if first([own], needed):  # and it did not fit
        less = world * max(1, own // 2)
        return f"{has}: another program may hold some (see nvidia-smi); end it, or lower the batch size to {less}."
    found = []
    if b := first(halves, needed):
        found.append(f"lower the batch size to {b * world}")
    if usual == "plain" and first([own], lambda b: needed(b, "recomputed")):
        found.append("recompute")
    if world > 1 and not shard and first([own], lambda b: needed(b, shard=True)):
        found.append("cut the weights among processes (shard)")
    smaller = [size for size in halves if towers and size < (chunk or own)]
    if size := first(smaller, lambda size: needed(own, "in chunks", size)):
        found.append(f"read in chunks of {size} (chunk)")
    if not found:
        return f"{has}. No batch is small enough: take a smaller preset."
    return f"{has}. What fits: {', or '.join(found)}."


def device_bytes() -> int:
    """The memory that this process can have of the device that it trains on: what it has, and what nobody has."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _counting(asked: Mapping[str, Any], world: int) -> tuple[Callable[[int, int], Any], int]:
    """What counts the training as it was asked for, on samples as long as in the first batches; and rows of a batch."""
    from mmlearn.training.counting import count_training

    options = asked["options"]
    drawing = dict(seed=asked["seed"], lengths=options.lengths, world=world)
    batches = batches_of(asked["data"], asked["collate"], asked["batch_size"], **drawing)
    alike: dict[tuple[str, ...], list[Batch]] = {}  # a batch of one task has other entries than one of another
    for batch in (batches[k] for k in range(LOOKED_AT)):
        alike.setdefault(tuple(batch), []).append(batch)

    def longest(name: str, given: Sequence[Batch], b: int) -> Tensor:
        shape = map(max, zip(*(batch[name].shape[1:] for batch in given)))
        return torch.empty((b, *shape), dtype=given[0][name].dtype, device="meta")

    def count(b: int, chunk: int) -> Any:
        learned = dict(precision=options.precision, optimizer=asked["optimizer"])
        tasks = [{name: longest(name, given, b) for name in names} for names, given in alike.items()]
        return count_training(asked["system"], asked["optimizer_steps"], tasks, devices=world, chunk=chunk, **learned)

    return count, len(next(iter(batch.values())))
