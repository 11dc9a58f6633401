"""Where a training runs out of memory: what to lower, and to what, by the planner's count."""

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from mmlearn.data.batches import batches_of
from mmlearn.data.fields import size
from mmlearn.recipes.recipe import Recipe
from mmlearn.training.counting import Count, count
from mmlearn.training.plan import GIB, memory

MARGIN = 1.15  # a measured peak is within 15 % of what is counted
LOOKED_AT = 4  # batches, for the length of their texts


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
    batch, world = asked["batch_size"], dist.get_world_size() if dist.is_initialized() else 1
    recipe = _recipe_of(asked["system"])
    try:
        counted = _counted(recipe, asked, world) if recipe else None
    except ValueError:  # its loss needs the numbers of a real batch
        counted = None
    if counted is None:
        return f"lower the batch size from {batch}, to {max(world, batch // 2 // world * world)} at first."
    ways = {name: asked[name] for name in ("recompute", "chunk", "shard")}
    return what_fits(counted, device_bytes(), batch, world, **ways)


def what_fits(
    counted: Count, room: int, batch: int, world: int = 1, *, recompute: bool, chunk: int | None, shard: bool = False
) -> str:
    """What would fit a device of ``room`` bytes, where a batch of ``batch`` on ``world`` of them did not; one line.

    Of several processes each has counted what it has itself: its own samples, with the columns that others bring.
    """

    def needed(batch: int, way: str, chunk: int | None = None, shard: bool = shard) -> float:
        own = memory(counted, batch // world, 1, chunk or batch // world)[way]
        held = memory(counted, batch, world)["sharded"] if shard else own
        return own["all"] + sum(held[name] - own[name] for name in ("weights", "gradients", "optimiser"))

    def largest(way: str, chunk: int | None = None) -> int:
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
    if need * MARGIN <= room:
        less = max(world, batch // 2 // world * world)
        return f"{has}: something else holds memory there (see nvidia-smi); end it, or lower the batch size to {less}."
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
    """The memory of the device that this process trains on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _recipe_of(system: nn.Module) -> Recipe | None:
    """The recipe at the foot of its file."""
    found = getattr(sys.modules.get(type(system).__module__), "RECIPE", None)
    return found if isinstance(found, Recipe) and found.system is type(system) else None


def _counted(recipe: Recipe, asked: Mapping[str, Any], world: int) -> Count:
    """The system and its training as it was asked for, with texts as long as those of the first batches."""
    config, holds = asked["system"].config, recipe.holds()[0]
    length = size(config, "max_length", 77)
    batches = batches_of(asked["data"], asked["collate"], asked["batch_size"], seed=asked["seed"], world=world)
    places = {name: holds[name].split()[1:].index("t") for name in holds if "t" in holds[name].split()[1:]}
    lengths = [x.shape[places[name]] for k in range(LOOKED_AT) for name, x in batches[k].items() if name in places]
    stage = next((stage.name for stage in recipe.stages if stage.turns == tuple(asked["turns"])), None)
    learned = dict(precision=asked["precision"], optimizer=asked["optimizer"], stage=stage)
    return count(recipe, config, **learned, text_length=max(lengths, default=length))
