"""How fast a training is, and what share of its card's arithmetic it uses."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mmlearn.evaluation.cost import count_flops
from mmlearn.training.plan import DEVICES, card_named


class Pace:
    """``fit(..., on_step=pace)`` tells it each step, which it tells to ``on_step`` as well."""

    def __init__(self, on_step: Callable[[int, dict[str, float]], None] | None = None):
        self.on_step = on_step
        self.times: list[float] = []

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        self.times.append(time.perf_counter())
        if self.on_step:
            self.on_step(step, metrics)

    @property
    def steps_a_second(self) -> float:
        """Of the second half: in the first, compilers work and loaders fill. NaN of fewer than two steps.

        ``fit`` tells steps in bunches of ``log_every``, of which there are to be many.
        """
        half = (len(self.times) - 1) // 2
        passed = self.times[-1] - self.times[half] if len(self.times) > 1 else 0.0
        return (len(self.times) - 1 - half) / passed if passed else math.nan


def step_flops(system: nn.Module, batches: Sequence[Mapping[str, Tensor]]) -> float:
    """The operations of a training step, forward and backward, of the mean of these batches; gradients are dropped."""
    device, training = next(system.parameters()).device, system.training

    def step(batch: Mapping[str, Tensor]) -> None:
        losses = system.loss({name: value.to(device) for name, value in batch.items()})
        torch.stack([*losses.values()]).sum().backward()

    system.train()
    total = sum(count_flops(partial(step, batch)) for batch in batches)
    system.train(training).zero_grad()
    return total / len(batches)


def peak_flops(precision: str) -> float | None:
    """FLOP/s of this machine's card by its data sheet, dense; ``None`` without a card whose sheet is known."""
    card = card_named(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    return DEVICES[card].flops.get(precision) if card else None
