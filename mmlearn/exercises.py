"""Exercises: checks that say at once which property fails, the list of tasks, and the student's progress."""

import functools
import importlib.util
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from mmlearn.chapters import notebooks_folder

NOT_SOLVED = "not solved yet"


class CheckFailed(Exception):
    """A student's function lacks a property. The message names it and gives a hint."""

    def __init__(self, property: str, hint: str = ""):
        super().__init__(f"{property} Hint: {hint}" if hint else property)
        self.property, self.hint = property, hint


@dataclass(frozen=True)
class Task:
    """One task of an exercise, its check, and the library's own function, which solves it."""

    exercise: str  # the folder of its checks
    name: str
    check: Callable[[Callable], None]
    reference: Callable
    difficulty: int  # 1 to 5
    minutes: int


def task(reference: Callable, *, difficulty: int, minutes: int) -> Callable[[Callable], Callable]:
    """Turn ``check_NAME(function)`` into the check of task NAME, whose solution is ``reference``.

    The check gets the student's function so wrapped that whatever goes wrong inside becomes :class:`CheckFailed`: an
    unfilled stub is "not solved yet", an error is told in one line, and so is a result that is None.
    """

    def decorate(check: Callable[[Callable], None]) -> Callable[[Callable], None]:
        @functools.wraps(check)
        def checked(function: Callable) -> None:
            with torch.random.fork_rng(devices=[]):
                torch.seed()  # fresh inputs every time
                check(_guard(function))

        exercise = Path(check.__code__.co_filename).parent.name
        checked.task = Task(exercise, check.__name__.removeprefix("check_"), checked, reference, difficulty, minutes)
        return checked

    return decorate


def _guard(function: Callable) -> Callable:
    @functools.wraps(function)
    def guarded(*arguments, **named):
        try:
            result = function(*arguments, **named)
        except NotImplementedError as error:
            raise CheckFailed(NOT_SOLVED) from error
        except Exception as error:
            line = str(error).splitlines()[0] if str(error) else "no message"
            raise CheckFailed(
                f"It stops with {type(error).__name__}: {line}.", "run it on a small input in a cell of its own."
            ) from error
        if result is None:
            raise CheckFailed(NOT_SOLVED)
        return result

    return guarded


def expect(holds: bool | Tensor, property: str, hint: str) -> None:
    """Fail with this property and hint unless it holds."""
    if not bool(holds):
        raise CheckFailed(property, hint)


def expect_close(got: Any, wanted: Tensor, property: str, hint: str, *, tolerance: float = 1e-5) -> None:
    """Fail unless ``got`` is a tensor like ``wanted``: same shape, finite, equal to ``tolerance``."""
    expect(isinstance(got, Tensor), f"It returns a tensor, not a {type(got).__name__}.", "return the tensor itself.")
    expect(
        got.shape == wanted.shape,
        f"Its result has shape {tuple(got.shape)}, expected {tuple(wanted.shape)}.",
        "write the shape beside each line and see where it goes wrong.",
    )
    expect(got.isfinite().all(), "Its result is finite.", "somewhere 0 is divided by 0, or exp grows too large.")
    expect(torch.allclose(got.to(wanted.dtype), wanted, atol=tolerance, rtol=tolerance), property, hint)


def attempt(check: Callable[[Callable], None], function: Callable) -> None:
    """Run a check in a notebook: print what it says, remember what is solved, and never stop the notebook."""
    name = check.task.name
    try:
        check(function)
    except CheckFailed as failure:
        print(f"…  {name}: {NOT_SOLVED}" if str(failure) == NOT_SOLVED else f"✘  {name}: {failure}")
        return
    print(f"✔  {name}: solved")
    _remember(f"{check.task.exercise}/{name}")


# The list and the progress.


def exercises_folder() -> Path:
    """The exercises beside the notebooks."""
    return notebooks_folder().parent / "exercises"


def load_part(exercise: Path, part: str) -> ModuleType:
    """Import ``checks.py`` or ``mistakes.py`` of an exercise folder."""
    spec = importlib.util.spec_from_file_location(f"mmlearn_exercise_{exercise.name}_{part}", exercise / f"{part}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tasks(exercise: Path) -> list[Task]:
    """The tasks of an exercise folder, in the order of its checks."""
    return [value.task for value in vars(load_part(exercise, "checks")).values() if hasattr(value, "task")]


def progress_file() -> Path:
    """Where solved tasks are remembered: under ``MMLEARN_HOME``, by default ``~/.mmlearn``."""
    return Path(os.environ.get("MMLEARN_HOME") or Path.home() / ".mmlearn") / "progress.json"


def solved() -> set[str]:
    """The solved tasks, as ``EXERCISE/TASK``. A damaged file counts as empty."""
    try:
        return set(json.loads(progress_file().read_text()))
    except (OSError, ValueError, TypeError):
        return set()


def _remember(name: str) -> None:
    path = progress_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".writing")
        temporary.write_text(json.dumps(sorted(solved() | {name}), indent=1))
        os.replace(temporary, path)
    except OSError as error:
        print(f"   (progress was not saved: {error})")
