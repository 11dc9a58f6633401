"""What a training step leaves to chance."""

import random

import torch
from jaxtyping import Int
from torch import Tensor


def generator_on_device_of(x: Tensor, seed: int) -> torch.Generator:
    """A generator with this seed that draws where ``x`` is: on its GPU, and otherwise on the CPU.

    A GPU draws other numbers than a CPU.
    """
    return torch.Generator(x.device if x.is_cuda else "cpu").manual_seed(seed)


def generator_of_step(seed: int, step: Int[Tensor, ""], *more: Int[Tensor, ""]) -> torch.Generator:
    """A generator that depends on the seed and the step alone, and on other numbers that a checkpoint holds.

    A resumed run therefore draws what the run would have drawn that was never stopped. It draws where ``step`` is.
    """
    # torch.compile has no generators, and would make the same graph anew for each step. PyTorch imports its compiler to
    # leave something out, so this is asked for here and not where the function is defined.
    return torch.compiler.disable(_generator_of_step)(seed, step, *more)


def _generator_of_step(seed: int, step: Tensor, *more: Tensor) -> torch.Generator:
    numbers = " ".join([str(int(seed)), *(str(int(number)) for number in (step, *more))])
    return generator_on_device_of(step, random.Random(numbers).getrandbits(32))
