"""What each task is tried with beside its own check: a batch of one, its defaults, and scores of other sizes.

The first call that a check makes is made again with other arguments, and the library says what must come back.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import Parameter, signature
from numbers import Real
from typing import Any, get_args

import torch
from torch import Tensor

from mmlearn.exercises.expectations import case, expect, expect_number, expect_tensor, near
from mmlearn.exercises.inputs import seeded

ROWS = 3  # of a batch, each of which is tried alone
Call = tuple[tuple, dict[str, Any]]  # the arguments of one call: those in order, and those by name


@dataclass(frozen=True)
class Variation:
    """What a call becomes in other circumstances: in words, with a hint, and the row that is left of the batch."""

    words: str
    hint: str
    call: Call
    row: int | None = None


def expect_varied(function: Callable, reference: Callable, call: Call, scores: tuple[str, ...] = ()) -> None:
    """Fail where the function differs from the reference for what this call becomes in other circumstances.

    Where all of the call is cut to a batch of one, where it leaves an argument to its default, and where its
    ``scores``, and whatever is called logits, are a thousand times as large, or all negative. What the reference does
    not answer with finite numbers is not asked. Of what is drawn by chance the shape alone is compared; and a row may
    also be what the function itself made of it among the others, where the statement leaves a choice.
    """
    parameters = signature(reference).parameters
    for one in _variations(parameters, call, scores):
        try:
            wanted = _called(reference, one.call)
        except Exception:
            continue
        if _is_finite(wanted):
            with case(one.words), torch.random.fork_rng(devices=[]):
                got = _called(function, one.call)
                among = None if one.row is None else _row_of(_called(function, call), one.row)
                _expect_like(got, wanted, among, one.hint, "generator" not in parameters)


def _variations(parameters: Any, call: Call, scores: tuple[str, ...]) -> Iterator[Variation]:
    axes = {name: _axes(one.annotation) for name, one in parameters.items()}
    if any(one[:1] == ["b"] for one in axes.values()):
        hint = (
            "squeeze() takes away every axis of length 1, the batch's too: name the axis, as squeeze(-1). What is "
            "counted in the batch, as F.one_hot counts its classes, is less here."
        )
        for row in range(ROWS):
            alone = _changed(parameters, call, lambda name, it, row=row: _one_row(it, row, axes[name]))
            yield Variation("For a batch of one", hint, alone, row)
    if left := _without_defaults(parameters, call):
        said = ", ".join(f"{name} = {value!r}" for name, value in left[1].items())
        yield Variation(f"Called without {', '.join(left[1])}", f"the stub's own: {said}.", left[0])
    tensors = [name for name, one in parameters.items() if hasattr(one.annotation, "dim_str")]
    chosen = [name for name in tensors if name in scores or "logits" in name]
    for words, change in (("a thousand times as large", _larger), ("all of which are negative", _negative)):
        if chosen:
            hint = "of any size: subtract the largest before exp, and begin a maximum with -math.inf, not with 0."
            changed = _changed(parameters, call, lambda name, it, do=change: do(it) if name in chosen else it)
            yield Variation(f"With {', '.join(chosen)} {words}", hint, changed)


def _called(function: Callable, call: Call) -> Any:
    """With arguments of its own, so that neither function spoils the other's."""
    given, named = call
    return function(*map(_fresh, given), **{name: _fresh(value) for name, value in named.items()})


def _changed(parameters: Any, call: Call, change: Callable[[str, Any], Any]) -> Call:
    given, named = call
    return tuple(map(change, parameters, given)), {name: change(name, value) for name, value in named.items()}


def _without_defaults(parameters: Any, call: Call) -> tuple[Call, dict[str, Any]] | None:
    """The call without what has a default, and these defaults; None where it hands over nothing of that kind."""
    given, named = call
    default = {name: one.default for name, one in parameters.items() if one.default is not Parameter.empty}
    kept = tuple(value for name, value in zip(parameters, given) if name not in default)
    left = {name: value for name, value in default.items() if name in (*list(parameters)[: len(given)], *named)}
    return ((kept, {name: value for name, value in named.items() if name not in default}), left) if left else None


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
    if isinstance(value, torch.Generator):
        return seeded()
    return value.clone() if isinstance(value, Tensor) else value


def _is_finite(wanted: Any) -> bool:
    parts = wanted if isinstance(wanted, tuple) else (wanted,)
    return all(
        bool(one.isfinite().all()) if isinstance(one, Tensor) else isinstance(one, Real) and math.isfinite(one)
        for one in parts
    )


def _row_of(result: Any, row: int) -> Any:
    if isinstance(result, tuple):
        return tuple(_row_of(one, row) for one in result)
    return result[row : row + 1] if isinstance(result, Tensor) and result.ndim else result


def _expect_like(got: Any, wanted: Any, among: Any, hint: str, exact: bool) -> None:
    """That it is what the reference gives, or else what was given ``among`` the other rows."""
    if isinstance(wanted, tuple):
        expect(isinstance(got, tuple) and len(got) == len(wanted), f"It must return {len(wanted)} parts.", hint)
        others = among if isinstance(among, tuple) else [None] * len(wanted)
        for parts in zip(got, wanted, others):
            _expect_like(*parts, hint, exact)
    elif isinstance(wanted, Tensor):
        got = expect_tensor(got)
        shapes = f"{tuple(wanted.shape)}; this one has {tuple(got.shape)}"
        expect(got.shape == wanted.shape, f"Its result must have shape {shapes}.", hint)
        right = near(got.double(), wanted.double(), 1e-4) or (among is not None and _is_same(got, among))
        expect(right or not exact, "It must be what the statement says.", hint)
    elif exact:
        expect_number(got, wanted, "It must be what the statement says.", hint, tolerance=1e-4)


def _is_same(got: Tensor, among: Any) -> bool:
    same = isinstance(among, Tensor) and among.shape == got.shape and got.ndim > 0
    return same and near(got.double(), among.double(), 1e-4)
