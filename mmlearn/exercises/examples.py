"""Examples that a statement works out by hand, which each check runs first."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmlearn.exercises.expectations import expect, near
from mmlearn.exercises.inputs import seeded


def by_hand(*inputs: Any, gives: Any, says: str = "", **named: Any) -> Callable[[Callable], None]:
    """The example of a statement: for these inputs a function must give this, to three digits.

    ``gives`` is a number, a tensor, or a tuple or dictionary of them; or, for what is drawn by chance, a function that
    tells whether a result is right, and then ``says`` tells what it must be. A ``seeded`` among the inputs stands for
    a new generator.
    """

    def example(function: Callable) -> None:
        given = [_fresh(value) for value in inputs]
        got = function(*given, **{name: _fresh(value) for name, value in named.items()})
        wanted = says or _words(gives)
        right = gives(got) if callable(gives) else _alike(got, gives)
        property = f"The statement's own example must give {wanted}; this gives {_words(got)}."
        expect(right, property, "work the example out by hand, and print each of your lines beside it.")

    return example


def _fresh(value: Any) -> Any:
    return seeded() if value is seeded else copy.deepcopy(value)  # whoever changes it spoils no other call


def _alike(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, tuple):
        return len(got) == len(wanted) and all(map(_alike, got, wanted))
    if isinstance(wanted, dict):
        return got.keys() >= wanted.keys() and all(_alike(got[name], wanted[name]) for name in wanted)
    got, wanted = (torch.as_tensor(value).detach().double() for value in (got, wanted))
    return got.shape == wanted.shape and near(got, wanted, 2e-3)


def _words(value: Any) -> str:
    if isinstance(value, tuple):
        return " and ".join(map(_words, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_words(one)}" for name, one in value.items())
    if isinstance(value, Tensor):
        value = value.detach()
        value = (value.double() * 1000).round().div(1000).tolist() if value.is_floating_point() else value.tolist()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
