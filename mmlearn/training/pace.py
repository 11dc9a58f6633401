"""How fast a training went, and how much of its card it used."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from mmlearn.data.fields import Batch
from mmlearn.evaluation.cost import count_flops
from mmlearn.training.plan import DEVICES


class Speed(NamedTuple):
    """Samples a second, the floating-point operations of these, and their share of what the card could do at most."""

    samples: float
    flops: float
    utilisation: float | None  # None where the card's data sheet is not known

    def __str__(self) -> str:
        share = "" if self.utilisation is None else f", {self.utilisation:.0%} of this card's data sheet"
        return f"{self.samples:,.0f} samples a second, {self.flops / 1e12:.3g} TFLOP/s{share}"


class Pace:
    """Pass as ``on_step`` to :func:`~mmlearn.training.fit`: notes when each step ends, and tells it to ``then``."""

    def __init__(self, batch_size: int, then: Callable[[int, dict[str, float]], Any] | None = None):
        self.batch_size, self.then = batch_size, then
        self.ends: list[float] = []

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        self.ends.append(time.perf_counter())
        if self.then:
            self.then(step, metrics)

    def speed(self, system: nn.Module, batch: Batch, precision: str = "bf16") -> Speed:
        r"""The speed of the second half of the steps; the first half also compiles and fills the loaders.

        .. math:: \text{FLOP/s} = \frac{\text{FLOPs of a forward and a backward pass}}{\text{sample}} \cdot
           \frac{\text{samples}}{\text{second}}

        A few samples as ``batch`` are enough to count; pairs of samples, as in a contrastive loss, hardly count. What
        the optimiser computes is left out, as usual. ``ValueError`` for fewer than three steps.
        """
        if len(self.ends) < 3:
            raise ValueError(f"A pace needs at least three steps, got {len(self.ends)}.")
        device = next(system.parameters()).device
        rows = len(next(iter(batch.values())))
        moved = {name: value.to(device) for name, value in batch.items()}
        flops = count_flops(lambda: sum(system.loss(moved).values()).backward()) / rows
        system.zero_grad()
        half = len(self.ends) // 2
        seconds = (self.ends[-1] - self.ends[half - 1]) / (len(self.ends) - half)
        samples, most = self.batch_size / seconds, _most(device, precision)
        return Speed(samples, samples * flops, most and samples * flops / most)


def _most(device: torch.device, precision: str) -> float | None:
    """The FLOP/s of this card's data sheet, where it is known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device).lower().replace(" ", "-")
    return next((card.flops.get(precision) for key, card in DEVICES.items() if key in name), None)
