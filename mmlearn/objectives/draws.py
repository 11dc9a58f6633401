"""What a training step leaves to chance."""

import random
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def generator_on_device_of(x: Tensor, seed: int) -> torch.Generator:
    """A generator with this seed that draws where ``x`` is: on its GPU, and otherwise on the CPU.

    A GPU draws other numbers than a CPU.
    """
    return torch.Generator(x.device if x.is_cuda else "cpu").manual_seed(seed)


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which ``torch.compile`` leaves to Python.

    It has no generators, so that its graph would end at each draw. Now it ends once, where this function is called.
    """

    @wraps(function)
    def left_out(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():  # otherwise PyTorch would import its compiler for nothing
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return left_out


@uncompiled
def generator_of_step(seed: int, step: Int[Tensor, ""], *more: Int[Tensor, ""]) -> torch.Generator:
    """A generator that depends on the seed and the step alone, and on other numbers that a checkpoint holds.

    A resumed run therefore draws what the run would have drawn that was never stopped. It draws where ``step`` is.
    """
    numbers = " ".join(map(str, (int(seed), *torch.stack([step, *more]).tolist())))  # waits for a GPU once
    return generator_on_device_of(step, random.Random(numbers).getrandbits(32))


def draw_by_odds(odds: Float[Tensor, "n m"], generator: torch.Generator) -> Int[Tensor, "n"]:
    r"""One of m for each row, by odds that need not sum to 1: the draws of ``torch.multinomial``, without its wait.

    .. math:: \arg\max_j \frac{o_j}{t_j}, \quad t_j \sim \mathrm{Exp}(1)

    Of clocks that ring after random times :math:`t_j / o_j`, number j is the first with probability
    :math:`o_j / \sum_k o_k`. ``multinomial`` does the same, but first asks the GPU whether the odds are valid.
    """
    device, odds = odds.device, odds.to(generator.device)
    return (odds / torch.empty_like(odds).exponential_(generator=generator)).argmax(1).to(device)
