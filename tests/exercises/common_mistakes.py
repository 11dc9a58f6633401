"""Ways to go wrong that many tasks share; each makes a wrong answer of a right one."""

import inspect
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
    return _drawn_from(function, lambda given: torch.default_generator)


def from_own_seed(function: Callable) -> Callable:
    """The right answer, drawn from a generator that is made anew for each call."""
    return _drawn_from(function, lambda given: torch.Generator().manual_seed(0))


def restarted(function: Callable) -> Callable:
    """The right answer, drawn from a generator that begins anew from the given one's seed with each call."""
    return _drawn_from(function, lambda given: torch.Generator().manual_seed(given.initial_seed()))


def _drawn_from(function: Callable, make: Callable[[torch.Generator], torch.Generator]) -> Callable:
    def wrong(*arguments: Any, **named: Any) -> Any:
        arguments = [make(value) if isinstance(value, torch.Generator) else value for value in arguments]
        named = {key: make(value) if isinstance(value, torch.Generator) else value for key, value in named.items()}
        return function(*arguments, **named)

    return wrong


def alike(function: Callable) -> Callable:
    """The right answer for each row by itself, all drawn with the same numbers."""

    def wrong(*arguments: Any, **named: Any) -> Any:
        values = [*arguments, *named.values()]
        (given,) = (value for value in values if isinstance(value, torch.Generator))
        rows, state = len(next(value for value in values if isinstance(value, Tensor))), given.get_state()
        results = []
        for row in range(rows):
            given.set_state(state)
            cut = [_row(value, row, rows) for value in arguments]
            results.append(function(*cut, **{name: _row(value, row, rows) for name, value in named.items()}))
        if isinstance(results[0], tuple):
            return tuple(map(torch.cat, zip(*results)))
        return torch.cat(results)

    return wrong


def number(function: Callable) -> Callable:
    """The right number, in a tensor that begins a graph of its own."""
    return then(function, lambda loss: torch.tensor(loss.item(), requires_grad=True))


def with_inputs(function: Callable, change: Callable[[Tensor], Tensor], *positions: int) -> Callable:
    """The right answer for inputs that are changed first: those at these positions, lists of tensors too, or all."""

    def wrong(*arguments: Any, **named: Any) -> Any:
        changed = [
            _changed(value, change) if not positions or position in positions else value
            for position, value in enumerate(arguments)
        ]
        return function(*changed, **named)

    return wrong


def deaf(function: Callable, position: int) -> Callable:
    """The right answer, from which no gradient comes to the input at this position."""
    return with_inputs(function, Tensor.detach, position)


def half_deaf(function: Callable, position: int) -> Callable:
    """The right answer, from which half of the gradient comes to the input at this position."""
    return with_inputs(function, lambda x: x / 2 + x.detach() / 2 if x.requires_grad else x, position)


def unsound(function: Callable, position: int) -> Callable:
    """The right answer, with a gradient that is NaN at the input at this position."""
    return with_inputs(function, lambda x: x + 0 * (0 * x).sqrt() if x.requires_grad else x, position)


def clamped(function: Callable) -> Callable:
    """The right answer for inputs of usual size: numbers are cut off at 60."""
    return with_inputs(function, lambda x: x.clamp(-60, 60) if x.is_floating_point() else x)


def not_below_zero(function: Callable) -> Callable:
    """The right answer, but not where all numbers of an input are negative: they count as zeros."""
    return with_inputs(function, lambda x: 0 * x if x.is_floating_point() and x.max() < 0 else x)


def by_default(function: Callable, name: str, value: Any) -> Callable:
    """The right answer, with another default of one argument."""
    position = list(inspect.signature(function).parameters).index(name)

    def wrong(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **(named if len(arguments) > position else {name: value, **named}))

    return wrong


def numb(function: Callable) -> Callable:
    """The right answer, but not for small inputs, of which none reaches a thousandth: they count as zeros."""
    return with_inputs(function, lambda x: 0 * x if x.is_floating_point() and 0 < x.abs().max() < 1e-3 else x)


def rounded_ids(function: Callable) -> Callable:
    """The right answer for whole numbers up to 2²⁴: they go through float32."""
    return with_inputs(function, lambda x: x if x.is_floating_point() or x.dtype == torch.bool else x.float().long())


def narrow(function: Callable) -> Callable:
    """The right answer for inputs with as many axes as the first one had, and for no others."""
    axes: list[int] = []

    def wrong(*arguments: Any, **named: Any) -> Any:
        axes[:] = axes or [arguments[0].ndim]
        if arguments[0].ndim != axes[0]:
            raise ValueError("another number of axes")
        return function(*arguments, **named)

    return wrong


def edits(function: Callable) -> Callable:
    """The right answer, which takes the last entry off the lists that it was given."""

    def wrong(*arguments: Any, **named: Any) -> Any:
        result = function(*arguments, **named)
        for value in (*arguments, *named.values()):
            if isinstance(value, list):
                value.pop()
        return result

    return wrong


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, list):
        return [_changed(one, change) for one in value]
    return change(value) if isinstance(value, Tensor) else value


def _row(value: Any, row: int, rows: int) -> Any:
    return value[row : row + 1] if isinstance(value, Tensor) and value.ndim and len(value) == rows else value
