"""Exercises: checks that say at once which property fails, the list of tasks, and the student's progress."""

import functools
import importlib.util
import json
import math
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from mmlearn.chapters import PACKAGE
from mmlearn.files import written_whole
from mmlearn.names import choices
from mmlearn.user_folder import user_folder

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


def expect(holds: bool | Tensor, property: str, hint: str) -> None:
    """Fail with this property and hint unless it holds."""
    if not bool(holds):
        raise CheckFailed(property, hint)


def expect_tensor(got: Any, shape: tuple[int, ...] | None = None, *, finite: bool = True) -> Tensor:
    """Hand back ``got`` if it is a tensor, of this shape, and finite unless that is left to later; otherwise fail."""
    expect(isinstance(got, Tensor), f"It must return a tensor, not a {type(got).__name__}.", "return the tensor.")
    expect(
        shape is None or got.shape == shape,
        f"Its result must have shape {shape and tuple(shape)}; this one has {tuple(got.shape)}.",
        "write the shape beside each line and see where it goes wrong.",
    )
    expect(
        not finite or got.isfinite().all(),
        "Its result must be finite; this one holds NaN or infinity.",
        "somewhere 0 is divided by 0, a logarithm meets 0, or exp grows too large.",
    )
    return got


def expect_close(got: Any, wanted: Tensor, property: str, hint: str, *, tolerance: float = 1e-5) -> None:
    """Fail unless ``got`` is a tensor like ``wanted``: same shape, finite, equal to ``tolerance``."""
    got = expect_tensor(got, wanted.shape).to(wanted.dtype)
    numbers = f" Expected {wanted:.4g}, got {got:.4g}." if wanted.ndim == 0 else ""
    expect(torch.allclose(got, wanted, atol=tolerance, rtol=tolerance), property + numbers, hint)


def expect_number(got: Any, wanted: Real, property: str, hint: str, *, tolerance: float = 1e-5) -> None:
    """Fail unless ``got`` is one number, plain or in a tensor, equal to ``wanted`` to ``tolerance``."""
    shape = f" of shape {tuple(got.shape)}" if isinstance(got, Tensor) else ""
    expect(
        isinstance(got, Real) or (isinstance(got, Tensor) and got.ndim == 0),
        f"It must return one number, not a {type(got).__name__}{shape}.",
        "take the mean over all rows at the end.",
    )
    expect(
        math.isfinite(got),
        f"Its result must be finite; this one is {float(got)}.",
        "somewhere 0 is divided by 0, or a logarithm meets 0.",
    )
    expect(
        math.isclose(got, wanted, abs_tol=tolerance, rel_tol=tolerance),
        f"{property} Expected {wanted:.4g}, got {float(got):.4g}.",
        hint,
    )


def near(got: Tensor, wanted: Tensor | float, tolerance: float = 1e-5) -> bool:
    """Equal to ``tolerance``, and never so where ``got`` is NaN: to recognise a mistake by what it gives."""
    wanted = torch.as_tensor(wanted, dtype=got.dtype).expand_as(got)
    return torch.allclose(got, wanted, atol=tolerance, rtol=tolerance)


def expect_trains(function: Callable, *inputs: Tensor) -> None:
    """Fail unless the function's result has a gradient that reaches all of these inputs."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    result = expect_tensor(function(*leaves))
    hint = "stay in torch: no item(), detach(), numpy, no_grad() or torch.tensor(…)."
    expect(result.requires_grad, "A gradient must flow from the result to its inputs, or nothing is learned.", hint)
    gradients = torch.autograd.grad(result.sum(), leaves, allow_unused=True)
    reached = all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
    expect(reached, "A gradient must flow to every input that is learned.", hint)


def new_seed() -> int:
    """A seed that is another one every time."""
    return secrets.randbelow(2**31)


@contextmanager
def case(words: str) -> Iterator[None]:
    """Within this block a failure is told with these words before it, such as "With a mask"."""
    try:
        yield
    except CheckFailed as failure:
        if str(failure) == NOT_SOLVED:
            raise
        raise CheckFailed(f"{words}: {failure.property}", failure.hint) from failure


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
    _remember(f"{check.task.exercise}/{name}")


# The list and the progress.


def exercises_folder() -> Path:
    """The exercises of this checkout, or those that came with the installed package."""
    for folder in (PACKAGE.parent / "exercises", PACKAGE / "_shipped" / "exercises"):
        if any(folder.glob("*/checks.py")):
            return folder
    raise FileNotFoundError(
        "No exercises came with this installation of mmlearn; install it from a checkout or a wheel."
    )


def load_checks(name: str) -> ModuleType:
    """The checks of an exercise, wherever its notebook was copied. ``ValueError`` lists what there is."""
    known = sorted(path.parent.name for path in exercises_folder().glob("*/checks.py"))
    if name not in known:
        raise ValueError(f"There is no exercise {name!r}; {choices(name, known)}.")
    return load_part(exercises_folder() / name, "checks")


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
    return user_folder() / "progress.json"


def solved() -> set[str]:
    """The solved tasks, as ``EXERCISE/TASK``. A damaged file counts as empty."""
    try:
        return {name for name in json.loads(progress_file().read_text()) if isinstance(name, str)}
    except (OSError, ValueError, TypeError):
        return set()


def _remember(name: str) -> None:
    path = progress_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as unfinished:
            unfinished.write_text(json.dumps(sorted(solved() | {name}), indent=1))
    except OSError as error:
        print(f"   (progress was not saved: {error})")
