"""What a training will cost, before anything is paid for: FLOPs, memory, hours, bytes."""

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


def card_named(name: str) -> str | None:
    """The card in ``DEVICES`` that has this name; ``None`` where there is none, or one of its slower kinds."""
    words = set(re.findall(r"\w+", name.lower()))
    if "nvl" in words or {"h100", "pcie"} <= words:
        return None
    if {"a100", "40gb"} <= words:
        return "a100-40"
    return next((card for card in DEVICES if set(card.split("-")) <= words), None)


def card_for(device: str, precision: str) -> Device:
    """The card of this name. ``ValueError`` for another, or a precision that it lacks."""
    if device not in DEVICES:
        raise ValueError(f"There is no device {device!r}; {suggest(device, DEVICES)}.")
    card = DEVICES[device]
    if precision not in card.flops:
        raise ValueError(f"{device} has no {precision}; {suggest(precision, card.flops)}.")
    return card


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
    memory: dict[str, dict[str, float]]  # on each device, as it was counted
    fits: list[str]  # the ways for which a device's memory is enough


def plan(counted: Count, *, samples: float, device: str, utilisation: float = 0.4) -> Plan:
    """A training in such steps on so many ``samples``, each as often as it is counted in them.

    ``utilisation`` is the share of its data sheet's FLOP/s that a device reaches: 0.3 to 0.5 in well-made trainings.
    Raises ``ValueError`` as :func:`card_for` does, and for samples or a utilisation that cannot be.
    """
    card = card_for(device, counted.precision)
    if not 1 <= samples < math.inf:
        raise ValueError(f"Samples are at least 1 and finite, got {samples:g}.")
    if not 0 < utilisation <= 1:
        raise ValueError(f"Utilisation is above 0 and at most 1, such as 0.4; got {utilisation}.")
    steps = math.ceil(samples / counted.batch)
    seconds = counted.flops / (card.flops[counted.precision] * utilisation)
    return Plan(
        parameters=counted.parameters,
        trained=counted.trained,
        flops=counted.flops * counted.devices,
        steps=steps,
        hours=steps * seconds / 3600,
        device_hours=steps * seconds * counted.devices / 3600,
        samples_per_second=counted.batch / seconds,
        bytes_per_second=counted.batch / seconds * counted.sample,
        memory=counted.memory,
        fits=[way for way, parts in counted.memory.items() if parts["all"] <= card.gib * GIB],
    )
