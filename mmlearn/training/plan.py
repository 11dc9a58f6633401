"""What a training will cost, before anything is paid for: FLOPs, memory, hours, bytes.

Several devices share the samples of a batch. Of the matrix of a contrastive loss each computes the rows of its own
samples, as :func:`mmlearn.objectives.own_rows` has it; where some rows have no part in the loss, all of it.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from mmlearn.suggestions import suggest
from mmlearn.training.counting import Count

GIB = 2**30


class Device(NamedTuple):
    """A card: its memory, and how fast it multiplies matrices at most, dense, in each precision."""

    gib: float
    flops: Mapping[str, float]  # precision → FLOP/s


# From NVIDIA's data sheets. "no" is float32 without the tensor cores, as PyTorch multiplies unless told otherwise.
DEVICES = {
    "t4": Device(16, {"no": 8.1e12, "fp16": 65e12}),
    "v100": Device(32, {"no": 15.7e12, "fp16": 125e12}),
    "rtx-4090": Device(24, {"no": 82.6e12, "bf16": 165.2e12, "fp16": 165.2e12}),
    "a100-40": Device(40, {"no": 19.5e12, "bf16": 312e12, "fp16": 312e12}),
    "a100": Device(80, {"no": 19.5e12, "bf16": 312e12, "fp16": 312e12}),
    "h100": Device(80, {"no": 66.9e12, "bf16": 989.4e12, "fp16": 989.4e12}),
    "h200": Device(141, {"no": 66.9e12, "bf16": 989.4e12, "fp16": 989.4e12}),
}


def memory(counted: Count, batch: int, devices: int = 1, chunk: int = 1024) -> dict[str, dict[str, float]]:
    """Bytes on each device, by the way of training and by what they hold.

    - *in chunks*, where that is possible: the towers of a contrastive system read ``chunk`` samples at a time, as
      :func:`~mmlearn.training.memory.encode_in_chunks` has it.
    - *recomputed*: of each transformer block only its input is kept, as in
      :func:`~mmlearn.training.memory.recompute_blocks`.
    - *sharded*: each device holds its part of weights, gradients and optimiser, and all weights of one block and of
      what is in no block, as :func:`~mmlearn.training.distributed.sharded` has it.
    """
    saved, each = counted.saved, min(chunk, math.ceil(batch / devices))
    matrix = saved.total.pairs(batch, devices)
    whole = saved.total.shared(batch, devices) - matrix
    outside = whole - saved.blocks.shared(batch, devices)
    once_more = outside + saved.inputs.shared(batch, devices) + saved.largest_block.shared(batch, devices)
    held = {"weights": 4 * counted.parameters, "gradients": 4 * counted.moved, "optimiser": counted.state}
    passing, of_chunk = counted.passing * batch / devices, saved.total.constant + saved.total.linear * each
    part = {name: value / devices for name, value in held.items()}
    part["weights"] += 4 * (counted.block + counted.outside)
    ways = {
        "plain": held | {"activations": whole, "in passing": passing},
        "in chunks": held | {"activations": of_chunk, "in passing": counted.passing * each},
        "recomputed": held | {"activations": once_more, "in passing": passing},
        "sharded": part | {"activations": whole, "in passing": passing},
    }
    if not counted.towers:
        del ways["in chunks"]
    for parts in ways.values():
        parts["loss matrix"] = matrix
        parts["all"] = sum(parts.values())
    return ways


def card_named(name: str) -> str | None:
    """The card in ``DEVICES`` that has this name; ``None`` where there is none, or one of its slower kinds."""
    words = set(re.findall(r"\w+", name.lower()))
    if "nvl" in words or {"h100", "pcie"} <= words:
        return None
    if {"a100", "40gb"} <= words:
        return "a100-40"
    return next((card for card in DEVICES if set(card.split("-")) <= words), None)


@dataclass(frozen=True)
class Plan:
    """What a training needs of devices, and of time in the plain way: the other ways compute or exchange more."""

    parameters: int
    trained: int
    flops: float  # of a step, of all devices
    steps: int
    hours: float
    device_hours: float
    samples_per_second: float
    bytes_per_second: float  # that loaders deliver to all devices, as a batch holds them
    memory: dict[str, dict[str, float]]  # as :func:`memory` has it
    fits: list[str]  # the ways for which a device's memory is enough


def card_for(device: str, precision: str, batch: int, devices: int) -> Device:
    """The card of this name. ``ValueError`` for another, a precision that it lacks, or a batch it cannot share."""
    if device not in DEVICES:
        raise ValueError(f"There is no device {device!r}; {suggest(device, DEVICES)}.")
    card = DEVICES[device]
    if precision not in card.flops:
        raise ValueError(f"{device} has no {precision}; {suggest(precision, card.flops)}.")
    if min(batch, devices) < 1 or batch % devices:
        raise ValueError(
            f"{devices} devices cannot share a batch of {batch} equally; take a multiple of them, at least 1 each."
        )
    return card


def plan(
    counted: Count,
    *,
    samples: float,
    batch: int,
    device: str,
    devices: int = 1,
    precision: str = "bf16",
    utilisation: float = 0.4,
    chunk: int = 1024,
) -> Plan:
    """A training on so many ``samples``, each as often as it is counted in them.

    ``utilisation`` is the share of its data sheet's FLOP/s that a device reaches: 0.3 to 0.5 in well-made trainings.
    Raises ``ValueError`` as :func:`card_for` does, and for samples, a chunk or a utilisation that cannot be.
    """
    card = card_for(device, precision, batch, devices)
    if not 1 <= samples < math.inf or chunk < 1:
        raise ValueError(f"Samples and a chunk are at least 1 and finite, got {samples:g} and {chunk}.")
    if not 0 < utilisation <= 1:
        raise ValueError(f"Utilisation is above 0 and at most 1, such as 0.4; got {utilisation}.")
    steps = math.ceil(samples / batch)
    flops = counted.flops.shared(batch, devices)
    seconds = flops / (card.flops[precision] * utilisation)
    held = memory(counted, batch, devices, chunk)
    return Plan(
        parameters=counted.parameters,
        trained=counted.trained,
        flops=flops * devices,
        steps=steps,
        hours=steps * seconds / 3600,
        device_hours=steps * seconds * devices / 3600,
        samples_per_second=batch / seconds,
        bytes_per_second=batch / seconds * counted.sample,
        memory=held,
        fits=[way for way, parts in held.items() if parts["all"] <= card.gib * GIB],
    )
