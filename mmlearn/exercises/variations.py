"""What each task is tried with beside its own check: a batch of one, its defaults, and scores of other sizes.

The first call that a check makes is made again with other arguments, and the library says what must come back.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from inspect import Parameter, signature
from numbers import Real
from typing import Any, get_args

import torch
from torch import Tensor

from mmlearn.exercises.expectations import case, expect, expect_number, expect_tensor, near
from mmlearn.exercises.inputs import seeded

ROWS = 3  # of a batch, each of which is tried alone
Call = tuple[tuple, dict[str, Any]]  # the arguments of one call: those in order, and those by name


def expect_varied(function: Callable, reference: Callable, call: Call, scores: tuple[str, ...] = ()) -> None:
    """Fail where the function differs from the reference for what this call becomes in other circumstances.

    Where all of the call can be cut to a batch of one, where it leaves an argument to its default, and where its
    ``scores``, and whatever is called logits, are a thousand times as large, or all negative. What the reference does
    not answer with finite numbers is not asked; of what is drawn by chance the shape alone is compared.
    """
    for words, hint, (given, named) in _varied(signature(reference).parameters, call, scores):
        try:
            wanted = reference(*map(_fresh, given), **_all_fresh(named))
        except Exception:
            continue
        if _is_finite(wanted):
            with case(words), torch.random.fork_rng(devices=[]):
                got = function(*map(_fresh, given), **_all_fresh(named))
                _expect_like(got, wanted, hint, "generator" not in signature(reference).parameters)


def _varied(parameters: Any, call: Call, scores: tuple[str, ...]) -> Iterator[tuple[str, str, Call]]:
    axes = {name: _axes(one.annotation) for name, one in parameters.items()}
    if any(one[:1] == ["b"] for one in axes.values()):
        hint = (
            "squeeze() takes away every axis of length 1, the batch's too: name the axis, as squeeze(-1). What is counted "
            "in the batch, as F.one_hot counts its classes, is less here."
        )
        for row in range(ROWS):
            yield "For a batch of one", hint, _changed(parameters, call, lambda name, it: _one_row(it, row, axes[name]))
    if left := _without_defaults(parameters, call):
        said = ", ".join(f"{name} = {value!r}" for name, value in left[1].items())
        yield f"Called without {', '.join(left[1])}", f"the stub's own: {said}.", left[0]
    chosen = [name for name in parameters if name in scores or ("logits" in name and axes[name])]
    for words, change in (("a thousand times as large", _larger), ("all of which are negative", _negative)):
        if chosen:
            hint = "of any size: subtract the largest before exp, and begin a maximum with -math.inf, not with 0."
            changed = _changed(parameters, call, lambda name, it: change(it) if name in chosen else it)
            yield f"With {', '.join(chosen)} {words}", hint, changed


def _changed(parameters: Any, call: Call, change: Callable[[str, Any], Any]) -> Call:
    given, named = call
    return tuple(map(change, parameters, given)), {name: change(name, value) for name, value in named.items()}


def _without_defaults(parameters: Any, call: Call) -> tuple[Call, dict[str, Any]] | None:
    """The call without what has a default, and these defaults; None where it hands over nothing of that kind."""
    given, named = call
    default = {name: one.default for name, one in parameters.items() if one.default is not Parameter.empty}
    kept = [value for name, value in zip(parameters, given) if name not in default]
    left = {name: value for name, value in default.items() if name in (*list(parameters)[: len(given)], *named)}
    return ((tuple(kept), {name: value for name, value in named.items() if name not in default}), left) if left else None


def _axes(annotation: Any) -> list[str]:
    """The names of a tensor's axes, up to those that may be any number; of what is None as well, or a number, too."""
    for one in (annotation, *get_args(annotation)):
        if names := getattr(one, "dim_str", ""):
            return list(itertools.takewhile(lambda name: name[0] not in "*.", names.split()))
    return []


def _one_row(value: Any, row: int, axes: list[str]) -> Any:
    if isinstance(value, Tensor) and value.ndim >= len(axes):
        for i, name in enumerate(axes):
            value = value.narrow(i, min(row, value.shape[i] - 1), 1) if name == "b" and value.shape[i] else value
    return value


def _larger(value: Any) -> Any:
    return 1000 * value if isinstance(value, Tensor) else value


def _negative(value: Any) -> Any:
    return -value.abs() - 1 if isinstance(value, Tensor) else value


def _fresh(value: Any) -> Any:
    """One of its own for each call, so that neither function spoils the other's."""
    if isinstance(value, torch.Generator):
        return seeded()
    return value.clone() if isinstance(value, Tensor) else value


def _all_fresh(named: dict[str, Any]) -> dict[str, Any]:
    return {name: _fresh(value) for name, value in named.items()}


def _is_finite(wanted: Any) -> bool:
    parts = wanted if isinstance(wanted, tuple) else (wanted,)
    return all(
        bool(one.isfinite().all()) if isinstance(one, Tensor) else isinstance(one, Real) and math.isfinite(one)
        for one in parts
    )


def _expect_like(got: Any, wanted: Any, hint: str, exact: bool) -> None:
    if isinstance(wanted, tuple):
        expect(isinstance(got, tuple) and len(got) == len(wanted), f"It must return {len(wanted)} parts.", hint)
        for one, other in zip(got, wanted):
            _expect_like(one, other, hint, exact)
    elif isinstance(wanted, Tensor):
        got = expect_tensor(got)
        shapes = tuple(wanted.shape), tuple(got.shape)
        expect(got.shape == wanted.shape, "Its result must have shape {}; this one has {}.".format(*shapes), hint)
        expect(not exact or near(got.double(), wanted.double(), 1e-4), "It must be what the statement says.", hint)
    elif exact:
        expect_number(got, wanted, "It must be what the statement says.", hint, tolerance=1e-4)
