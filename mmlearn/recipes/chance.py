"""What a loss is before anything is learned, as a function of a configuration and a batch."""

import math
from collections.abc import Callable

from mmlearn.data.fields import Batch, size
from mmlearn.layers.config import Config

Chance = Callable[[Config, Batch], float]


def ln(number: int | str, scale: float = 1.0) -> Chance:
    """The logarithm of a number, or of a size of the configuration: to choose among so many at random."""
    return lambda config, batch: scale * math.log(number if isinstance(number, int) else size(config, number))


def ln_batch(config: Config, batch: Batch) -> float:
    """The logarithm of the batch's rows: to find a partner among all of them at random."""
    return math.log(len(next(iter(batch.values()))))
