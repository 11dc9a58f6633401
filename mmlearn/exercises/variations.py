"""What each task is tried with beside its own check: a batch of one, its defaults, and scores of other sizes.

The first call that a check makes is made again with other arguments, and the library says what must come back.
"""

import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any, get_args

import torch
from torch import Tensor

from mmlearn.exercises.expectations import case, expect, expect_number, near
from mmlearn.exercises.guard import parameters
from mmlearn.exercises.inputs import numbers, seeded

Call = tuple[tuple, dict[str, Any]]  # the arguments of one call: those in order, and those by name
SIZES = {"in the thousands": (1000, 0), "all of which are negative": (0, 1)}


def expect_varied(function: Callable, reference: Callable, call: Call, scores: tuple[str, ...] = ()) -> None:
    """Fail where the function differs from the reference for what this call becomes in other circumstances.

    Where all of the call is cut to a batch of one, where it leaves an argument to its default, and where its
    ``scores``, and whatever is called logits, are thousands, or all negative. What the reference does not answer with
    finite numbers is not asked. Of what is drawn by chance the shape alone is compared; and a row may also be what the
    function itself made of it among the others, where the statement leaves a choice.
    """
    known = inspect.signature(reference).parameters if parameters(reference) else {}  # of what is written in C nothing
    for words, hint, varied, row in _variations(known, call, scores):
        try:
            wanted = _called(reference, varied)
        except Exception:
            continue
        if all(torch.as_tensor(one).isfinite().all() for one in _parts(wanted)):
            with case(words), torch.random.fork_rng(devices=[]):
                got, among = _called(function, varied), None if row is None else _called(function, call)
                _expect_like(got, wanted, among, row, hint, exact="generator" not in known)


def _variations(known: Any, call: Call, scores: tuple[str, ...]) -> Iterator[tuple[str, str, Call, int | None]]:
    """In words, with a hint: what the call becomes, and which row is left of the batch."""
    given, named = call
    first, handed = list(known)[: len(given)], {**dict(zip(known, given)), **named}

    def changed(new: dict[str, Any]) -> Call:
        return tuple(new[one] for one in first if one in new), {one: new[one] for one in named if one in new}

    axes = {name: _axes(known[name].annotation) for name in handed}
    if any(found[:1] == ["b"] for found in axes.values()):
        hint = (
            "squeeze() takes away every axis of length 1, the batch's too: name the axis, as squeeze(-1). What is "
            "counted in the batch, as F.one_hot counts its classes, is less here."
        )
        for row in range(3):
            alone = {name: _one_row(value, row, axes[name]) for name, value in handed.items()}
            yield "For a batch of one", hint, changed(alone), row
    left = {name: known[name].default for name in handed if known[name].default is not inspect._empty}
    if left:
        said = ", ".join(f"{name} = {value!r}" for name, value in left.items())
        rest = {name: value for name, value in handed.items() if name not in left}
        yield f"Called without {', '.join(left)}", f"the stub's own: {said}.", changed(rest), None
    chosen = [name for name in handed if name in scores or ("logits" in name and isinstance(handed[name], Tensor))]
    for words, (times, below) in SIZES.items() if chosen else ():
        hint = "of any size: subtract the largest before exp, and begin a maximum with -math.inf, not with 0."
        drawn = {name: numbers(*handed[name].shape).to(handed[name]) for name in chosen}
        other = {name: times * value - below * (value.abs() + 1) for name, value in drawn.items()}
        yield f"With {', '.join(chosen)} {words}", hint, changed({**handed, **other}), None


def _axes(annotation: Any) -> list[str]:
    """The names of a tensor's axes, up to those that may be any number."""
    for one in (annotation, *get_args(annotation)):
        if hasattr(one, "dim_str"):
            return list(itertools.takewhile(lambda name: name[0] not in "*.", one.dim_str.split()))
    return []


def _one_row(value: Any, row: int, axes: list[str]) -> Any:
    if isinstance(value, Tensor) and value.ndim >= len(axes):
        for i, name in enumerate(axes):
            value = value.narrow(i, min(row, value.shape[i] - 1), 1) if name == "b" and value.shape[i] else value
    return value


def _called(function: Callable, call: Call) -> Any:
    """With arguments of its own, so that neither function spoils the other's."""

    def fresh(value: Any) -> Any:
        return seeded() if isinstance(value, torch.Generator) else value.clone() if isinstance(value, Tensor) else value

    given, named = call
    return function(*map(fresh, given), **{name: fresh(value) for name, value in named.items()})


def _parts(result: Any) -> tuple:
    return tuple(result) if isinstance(result, tuple) else (result,)


def _expect_like(got: Any, wanted: Any, among: Any, row: int | None, hint: str, exact: bool) -> None:
    """That it is what the reference gives, or else what the function gave to this row ``among`` the others."""
    expect(len(_parts(got)) == len(_parts(wanted)), f"It must return {len(_parts(wanted))} parts.", hint)
    for one, right, others in itertools.zip_longest(*map(_parts, (got, wanted, among))):
        if not isinstance(right, Tensor):
            expect_number(one, right, "It must be what the statement says.", hint, tolerance=1e-4)
            continue
        shape = tuple(getattr(one, "shape", ()))
        same = isinstance(one, Tensor) and shape == right.shape
        expect(same, f"Its result must have shape {tuple(right.shape)}; this one has {shape}.", hint)
        expect(one.isfinite().all(), "Its result must be finite; this one holds NaN or infinity.", hint)
        alike = [right] if row is None or not right.ndim else [right, others[min(row, len(others) - 1)][None]]
        close = any(other.shape == one.shape and near(one.double(), other.double(), 1e-4) for other in alike)
        expect(close or not exact, "It must be what the statement says.", hint)
