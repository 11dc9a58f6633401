"""A student's function, so wrapped that whatever goes wrong inside is told in one line."""

import functools
import inspect
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmlearn.exercises.expectations import NOT_SOLVED, CheckFailed, expect


class Guarded:
    """The function as a check calls it.

    ``given`` tells what it was handed at most, in order: types and axes. ``first`` is a copy of its first call.
    """

    def __init__(self, function: Callable):
        functools.update_wrapper(self, function)
        self.function = function
        self.given: list[Any] = []
        self.first: tuple[tuple, dict[str, Any]] | None = None

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if len(arguments) > len(self.given):
            self.given = [_kind(value) for value in arguments]
        handed = (*arguments, *named.values())
        before = [_copy(value) for value in handed]
        if self.first is None:
            self.first = tuple(before[: len(arguments)]), dict(zip(named, before[len(arguments) :]))
        try:
            result = self.function(*arguments, **named)
        except Exception as error:
            raise _told(error, self.function) from error
        expect(result is not None, "It must return its result; this returns None.", "end the function with return.")
        expect(
            all(map(_same, handed, before)),
            "It must leave its arguments as they are; this changes one of them.",
            "x = x + y makes a new tensor; x += y and methods that end in _ change the one you were given, and append, "
            "pop and sort change a list: list(x) is one of your own.",
        )
        return result


def swapped(function: Callable, one: int, other: int) -> Callable:
    """The function with two of its arguments in each other's place."""
    return functools.wraps(function)(lambda *given, **named: function(*_exchanged(given, one, other), **named))


def parameters(function: Callable) -> list[str]:
    """The names of a function's parameters; none of a function that was written in C."""
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:
        return []


def in_one_line(error: Exception) -> str:
    """The type of an error and what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    said = lines[0] if len(lines) == 1 else f"{lines[0]} … {lines[-1]}"  # einops gives the reason last
    return f"{type(error).__name__}: {said.rstrip('.')}"


def where(error: BaseException, function: Callable) -> str:
    """In which line of the student's function an error came up; nothing where it was elsewhere."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code is code]
    return f" in line {lines[-1]}" if lines else ""


def _told(error: Exception, function: Callable) -> CheckFailed:
    """What an error inside the function means: a stub, one that is called, or a mistake."""
    frames = list(traceback.walk_tb(error.__traceback__))[1:]  # the first is that of the guard
    if isinstance(error, NotImplementedError) and frames and not str(error):
        code = frames[-1][0].f_code
        own = len(frames) == 1 or code is getattr(inspect.unwrap(function), "__code__", None)
        if own:
            return CheckFailed(NOT_SOLVED, answered=False)
        return CheckFailed(
            f"It calls {code.co_name}, which is {NOT_SOLVED}.",
            f"solve {code.co_name} first, or import the library's in its place.",
            answered=False,
        )
    where = f" in line {frames[0][1]}" if frames else ""  # none where the call itself fails, as with a wrong signature
    return CheckFailed(f"It stops{where} with {in_one_line(error)}.", "run it on a small input in a cell of its own.")


def _exchanged(given: tuple, one: int, other: int) -> list:
    given = list(given)
    if other < len(given):
        given[one], given[other] = given[other], given[one]
    return given


def _kind(value: Any) -> Any:
    return ("tensor", value.ndim) if isinstance(value, Tensor) else type(value)


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, list | tuple):
        copied = map(_copy, value)
        return tuple(copied) if isinstance(value, tuple) else list(copied)
    return {key: _copy(one) for key, one in value.items()} if isinstance(value, dict) else value


def _same(value: Any, before: Any) -> bool:
    if isinstance(value, Tensor):
        return isinstance(before, Tensor) and torch.equal(value, before)
    if isinstance(value, list | tuple):
        return len(value) == len(before) and all(map(_same, value, before))
    if isinstance(value, dict):
        return list(value) == list(before) and all(map(_same, value.values(), before.values()))
    return value is before or not isinstance(value, int | float | str) or value == before
