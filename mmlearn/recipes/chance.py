"""What a loss is before anything is learned, as a function of a configuration and a batch."""

import math
from collections.abc import Callable
from typing import Any

import torch

from mmlearn.data.fields import Batch, size
from mmlearn.layers.config import Config

Chance = Callable[[Any, Batch], float]  # of a system's own configuration


def ln(number: int | str, scale: float | str = 1.0) -> Chance:
    """The logarithm of a number: to choose among so many at random, in a loss that is weighted by ``scale``.

    Both are numbers or names of settings of the configuration.
    """

    def chance(config: Config, batch: Batch) -> float:
        weight, choices = (size(config, one) if isinstance(one, str) else one for one in (scale, number))
        return weight * math.log(choices)

    return chance


def ln_batch(config: Config, batch: Batch) -> float:
    """The logarithm of the batch's rows: to find a partner among all of them at random."""
    return math.log(len(next(iter(batch.values()))))


def ln_batch_and_queue(config: Config, batch: Batch) -> float:
    """As :func:`ln_batch`, among those that wait in a queue as well."""
    return math.log(len(next(iter(batch.values()))) + size(config, "queue_size"))


def hinge_at_equal_similarity(config: Config, batch: Batch) -> float:
    """A ranking hinge where all pairs are as near: the margin from both sides, of one wrong pair or of all."""
    wrong = len(next(iter(batch.values()))) - 1
    return 2 * size(config, "margin") * (min(wrong, 1) if size(config, "hardest") else wrong)


def zero_mel(config: Config, batch: Batch) -> float:
    """The mean absolute value of real log-mel frames: to say 0 everywhere."""
    return batch["mel"].mT[batch["mel_mask"]].abs().mean().item()


def uniform_classes(config: Config, batch: Batch) -> float:
    """How far the classes of masked regions are from equally likely ones, as a Kullback–Leibler divergence."""
    classes = batch["region_classes"][batch["masked_regions"]]
    return math.log(classes.shape[1]) - torch.special.entr(classes).sum(1).mean().item()
