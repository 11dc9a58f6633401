"""What a training step leaves to chance."""

import random

import torch
from jaxtyping import Int
from torch import Tensor


def generator_of_step(seed: int, step: int | Int[Tensor, ""]) -> torch.Generator:
    """A generator that depends on the seed and the step alone.

    A resumed run therefore draws what the run would have drawn that was never stopped.
    """
    return torch.Generator().manual_seed(random.Random(f"{seed} {int(step)}").getrandbits(32))
