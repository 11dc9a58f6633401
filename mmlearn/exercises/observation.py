"""Experiments: predict what a change does, make it, and observe; the check reads the prediction and the numbers."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmlearn.exercises.expectations import NOT_SOLVED, CheckFailed, expect
from mmlearn.exercises.guard import in_one_line
from mmlearn.exercises.progress import remember


@dataclass(frozen=True)
class Experiment:
    """One experiment of an exercise: what may be predicted, and the check that says what happens."""

    exercise: str
    name: str
    answers: tuple[str, ...]
    minutes: int
    why: str


def experiment(*answers: str, minutes: int = 5) -> Callable[[Callable], Callable]:
    """Turn ``check_NAME(observed)`` into the check of an experiment, which returns the answer that is observed.

    Its docstring says why it comes so; the student reads that once the experiment is done.
    """

    def decorate(check: Callable[[Any], str]) -> Callable[[Any, Any], str]:
        @functools.wraps(check)
        def checked(prediction: Any, observed: Any) -> str:
            if prediction is ...:
                raise CheckFailed(NOT_SOLVED, answered=False)
            choices = ", ".join(map(repr, answers))
            expect(prediction in answers, f"The prediction must be one of {choices}.", "a word in quotes.")
            try:
                return check(observed)
            except CheckFailed:
                raise
            except Exception as error:
                raise CheckFailed(
                    f"What was observed cannot be read ({in_one_line(error)}).", "keep the last lines of the cell."
                ) from error

        name = check.__name__.removeprefix("check_")
        folder, why = Path(check.__code__.co_filename).parent.name, (check.__doc__ or "").strip()
        checked.experiment = Experiment(folder, name, answers, minutes, why)
        return checked

    return decorate


def observe(check: Callable, prediction: Any, observed: Any) -> None:
    """Run the check of an experiment in a notebook: print what it says, and never stop the notebook."""
    about = check.experiment
    try:
        answer = check(prediction, observed)
    except CheckFailed as failure:
        failure.tell(about.name)
        return
    right = "as you predicted" if prediction == answer else f"and you predicted {prediction!r}"
    print(f"✔  {about.name}: observed {answer!r}, {right}")
    print(f"   {about.why}")
    remember(f"{about.exercise}/{about.name}")


def expect_observed(observed: Any, wanted: Sequence[float], unchanged: Sequence[float]) -> None:
    """Fail unless the numbers are those that the change gives; say so where nothing was changed yet."""
    got, wanted, unchanged = (torch.as_tensor(values).double().flatten() for values in (observed, wanted, unchanged))
    expect(len(got) == len(wanted), f"observed must hold {len(wanted)} numbers; it holds {len(got)}.", "keep the loop.")
    same = got.allclose(unchanged, atol=1e-3, rtol=1e-3)
    expect(
        not same, "These are the numbers of the line as it was.", "now change the line that is marked, and run again."
    )
    hint = "change only the line that is marked, as the text says."
    expect(got.allclose(wanted, atol=1e-3, rtol=1e-3), "These are not the numbers that this change gives.", hint)
