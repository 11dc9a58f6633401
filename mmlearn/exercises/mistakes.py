"""Ways to go wrong that many tasks share; each makes a wrong answer of a right one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def then(function: Callable, change: Callable[[Any], Any]) -> Callable:
    """The right answer, and then a change of its result."""
    return lambda *arguments, **named: change(function(*arguments, **named))


def detached(function: Callable) -> Callable:
    """The right answer without its gradient."""
    return then(function, Tensor.detach)


def from_global_state(function: Callable) -> Callable:
    """The right answer, drawn from torch's own generator and not from the one that is given."""
    return _drawn_from(function, lambda: torch.default_generator)


def from_own_seed(function: Callable) -> Callable:
    """The right answer, drawn from a generator that is made anew for each call."""
    return _drawn_from(function, lambda: torch.Generator().manual_seed(0))


def _drawn_from(function: Callable, make: Callable[[], torch.Generator]) -> Callable:
    def wrong(*arguments, **named):
        arguments = [make() if isinstance(value, torch.Generator) else value for value in arguments]
        named = {key: make() if isinstance(value, torch.Generator) else value for key, value in named.items()}
        return function(*arguments, **named)

    return wrong
