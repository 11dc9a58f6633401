"""Random inputs of checks, fresh every time, whatever the state of the random numbers of the student's notebook."""

import secrets
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def new_seed() -> int:
    """A seed that is another one every time."""
    return secrets.randbelow(2**31)


def seeded(seed: int | torch.Generator | None = None) -> torch.Generator:
    """A generator of its own, from this seed or from a new one; one that is given is handed back as it is."""
    if isinstance(seed, torch.Generator):
        return seed
    return torch.Generator().manual_seed(new_seed() if seed is None else seed)


def between(low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``."""
    return int(torch.randint(low, high + 1, (), generator=seeded()))


def uniform(low: float, high: float) -> float:
    """A number from ``low`` to ``high``."""
    return float(low + (high - low) * torch.rand((), generator=seeded()))


def numbers(*shape: int) -> Tensor:
    """Numbers from a standard normal distribution."""
    return torch.randn(*shape, generator=seeded())


def evenly(*shape: int) -> Tensor:
    """Numbers from 0 to 1."""
    return torch.rand(*shape, generator=seeded())


def unit(*shape: int) -> Tensor:
    """Embeddings of unit length."""
    return F.normalize(numbers(*shape), dim=-1)


def random_boxes(*shape: int) -> Tensor:
    """Left, top, right, bottom, none of them thin."""
    start = 0.5 * evenly(*shape, 2)
    return torch.cat([start, start + 0.1 + 0.4 * evenly(*shape, 2)], dim=-1)


def orthogonal(*shape: int) -> Tensor:
    """As many embeddings of unit length as they have numbers, (…, d, d), each at a right angle to all others."""
    return torch.linalg.qr(numbers(*shape, shape[-1]))[0]


def some_of(*shape: int, real: int | Sequence[int] | Tensor) -> Tensor:
    """A mask with so many real ones in each row, in random positions; ``real`` may list a number for each row."""
    return evenly(*shape).argsort(-1) < torch.as_tensor(real)[..., None]


def first_of(n: int, real: Sequence[int] | Tensor) -> Tensor:
    """A mask (b, n) with so many real ones at the start of each row, and padding behind them."""
    return torch.arange(n) < torch.as_tensor(real)[:, None]
