"""A task and its check: what goes wrong inside a student's function is told in one line, and what is solved is kept."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmlearn.exercises.expectations import NOT_SOLVED, CheckFailed, expect
from mmlearn.exercises.progress import remember


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
    unfilled stub is "not solved yet"; an error, a forgotten return and a changed argument are told in one line.
    """

    def decorate(check: Callable[[Callable], None]) -> Callable[[Callable], None]:
        @functools.wraps(check)
        def checked(function: Callable) -> None:
            with torch.random.fork_rng(devices=[]):
                torch.seed()  # fresh inputs every time
                try:
                    check(_guard(function))
                except CheckFailed:
                    raise
                except Exception as error:  # such as a result whose shape is right once and wrong the next time
                    raise CheckFailed(
                        f"Its result cannot be compared ({_in_one_line(error)}).",
                        "look at the type and shape of what it returns.",
                    ) from error

        exercise = Path(check.__code__.co_filename).parent.name
        checked.task = Task(exercise, check.__name__.removeprefix("check_"), checked, reference, difficulty, minutes)
        return checked

    return decorate


def _guard(function: Callable) -> Callable:
    @functools.wraps(function)
    def guarded(*arguments, **named):
        tensors = [value for value in (*arguments, *named.values()) if isinstance(value, Tensor)]
        before = [tensor.detach().clone() for tensor in tensors]
        try:
            result = function(*arguments, **named)
        except NotImplementedError as error:
            raise CheckFailed(NOT_SOLVED) from error
        except Exception as error:
            inside = error.__traceback__.tb_next  # None where the call itself fails, as with a wrong signature
            where = f" in line {inside.tb_lineno}" if inside else ""
            raise CheckFailed(
                f"It stops{where} with {_in_one_line(error)}.", "run it on a small input in a cell of its own."
            ) from error
        expect(result is not None, "It must return its result; this returns None.", "end the function with return.")
        expect(
            all(map(torch.equal, tensors, before)),
            "It must leave its arguments as they are; this changes one of them.",
            "x = x + y makes a new tensor; x += y and methods that end in _ change the one you were given.",
        )
        return result

    return guarded


def _in_one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    said = lines[0] if len(lines) == 1 else f"{lines[0]} … {lines[-1]}"  # einops gives the reason last
    return f"{type(error).__name__}: {said.rstrip('.')}"


def attempt(check: Callable[[Callable], None], function: Callable) -> None:
    """Run a check in a notebook: print what it says, remember what is solved, and never stop the notebook."""
    name = check.task.name
    try:
        check(function)
    except CheckFailed as failure:
        print(f"…  {name}: {NOT_SOLVED}" if str(failure) == NOT_SOLVED else f"✘  {name}: {failure.property}")
        if failure.hint:
            print(f"   Hint: {failure.hint}")
        return
    print(f"✔  {name}: solved")
    remember(f"{check.task.exercise}/{name}")
