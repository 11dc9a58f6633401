"""A task and its check: what goes wrong inside a student's function is told in one line, and what is solved is kept."""

import functools
import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

import torch

from mmlearn.exercises.expectations import CheckFailed
from mmlearn.exercises.guard import Guarded, in_one_line, parameters, swapped, where
from mmlearn.exercises.inputs import new_seed
from mmlearn.exercises.progress import forget, remember, solved
from mmlearn.exercises.variations import expect_varied

SLOW = 10  # seconds, after which a check says that it is still running
AS_IN_STUB = "are used in each other's place", "see where you use each"
OTHER_ORDER = "have changed positions", "keep the order of the stub"


@dataclass(frozen=True)
class Task:
    """One task of an exercise, its check, and what solves it: a function of the library, or one beside the check."""

    exercise: str  # the folder of its checks
    name: str
    check: Callable[[Callable], None]
    reference: Callable
    difficulty: int  # 1 to 5
    minutes: int
    example: Callable[[Callable], None] | None = None  # the one that the statement works out by hand


def task(
    reference: Callable,
    *,
    difficulty: int,
    minutes: int,
    example: Callable[[Callable], None] | None = None,
    scores: str = "",
) -> Callable[[Callable], Callable]:
    """Turn ``check_NAME(function)`` into the check of task NAME, whose solution is ``reference``.

    The check gets the student's function so wrapped that whatever goes wrong inside becomes :class:`CheckFailed`: an
    unfilled stub is "not solved yet"; an error, a forgotten return and a changed argument are told in one line.
    The statement's ``example`` runs first; where it fails and the check names no other property, it is told. Last come
    the variations of :func:`expect_varied`, for which ``scores`` names arguments, with spaces between them.
    """

    def decorate(check: Callable[[Callable], None]) -> Callable[[Callable], None]:
        def with_variations(function: Guarded) -> None:
            function.first = None  # the check's own
            check(function)
            if function.first:
                expect_varied(function, reference, function.first, tuple(scores.split()))

        @functools.wraps(check)
        def checked(function: Callable) -> None:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(new_seed())  # fresh inputs every time; a GPU keeps its own
                failure, given, shown = _verdict(with_variations, example, function)
                if failure and failure.answered:
                    names = dict(zip(parameters(reference), given))
                    with warnings.catch_warnings(action="ignore"):
                        told = _with_positions(failure, with_variations, example, function, names, shown)
                        failure = told or failure
            if failure:
                raise failure

        exercise = Path(check.__code__.co_filename).parent.name
        name = check.__name__.removeprefix("check_")
        checked.task = Task(exercise, name, checked, reference, difficulty, minutes, example)
        return checked

    return decorate


def _verdict(check: Callable, example: Callable | None, function: Callable) -> tuple[CheckFailed | None, list, int]:
    """What is wrong with a function, if anything; of which kinds its arguments were; how many a right example gave."""
    guarded, found, shown = Guarded(function), None, 0
    for ask in filter(None, (example, check)):
        try:
            ask(guarded)
            if ask is example:
                shown = len(guarded.given)
        except Exception as error:
            failure = error if isinstance(error, CheckFailed) else _incomparable(error)
            failure.by_hand, found = found, failure
    return found, guarded.given, shown


def _is_right(check: Callable, example: Callable | None, function: Callable) -> bool:
    """Whether nothing is wrong with a function. The example alone rejects most, and is quick."""
    guarded = Guarded(function)
    try:
        for ask in filter(None, (example, check)):
            ask(guarded)
    except Exception:
        return False
    return True


def _incomparable(error: Exception) -> CheckFailed:
    """As where the shape of a result is right once and wrong the next time, or where a gradient ends in a copy."""
    if "not have been used in the graph" in str(error):
        failure = CheckFailed(
            "No gradient comes from its result to its inputs: it learns into a copy.",
            "detach(), torch.tensor(…) and Parameter(…) make a tensor that nothing leads back from; clone() does not.",
        )
    else:
        property = f"Its result cannot be compared ({in_one_line(error)})."
        failure = CheckFailed(property, "look at the type and shape of what it returns.")
    failure.__cause__ = error
    return failure


def _with_positions(
    failure: CheckFailed, check: Callable, example: Callable | None, function: Callable, kinds: dict, shown: int
) -> CheckFailed | None:
    """The failure as it is told where the function passes with two of its arguments in each other's place.

    That is the order of its arguments, or, where they are named as in the stub, what is made of each. Where the
    statement's example is right as it is, of the arguments that it gives only two of the same kind can have
    changed positions.
    """
    names = list(kinds)
    for one, other in itertools.combinations(range(len(names)), 2):
        if other < shown and kinds[names[one]] != kinds[names[other]]:
            continue
        if _is_right(check, example, swapped(function, one, other)):
            as_named = parameters(function)[: len(names)] == names
            how, what = AS_IN_STUB if as_named else OTHER_ORDER
            told = CheckFailed(
                f"The arguments {names[one]} and {names[other]} {how}. {failure.property}",
                f"it is right with these two swapped: {what}. Otherwise {failure.hint}",
            )
            told.by_hand = failure.by_hand
            return told
    return None


def attempt(check: Callable[[Callable], None], function: Callable) -> None:
    """Run a check in a notebook: print what it says, remember what is solved, and never stop the notebook.

    Whoever interrupts it is told in which line it was, without a traceback.

    What was solved and fails now is no longer solved; an unfilled stub is no answer, and leaves it as it is.
    """
    name, key = check.task.name, f"{check.task.exercise}/{check.task.name}"
    try:
        with _says_if_slow(name):
            check(function)
    except CheckFailed as failure:
        failure.tell(name)
        if failure.by_hand and failure.by_hand.property != failure.property:
            print(f"   By hand: {failure.by_hand.property}")
        if failure.answered and key in solved():
            forget(key)
            print("   It was solved before, and no longer is.")
        return
    except KeyboardInterrupt as stopped:
        print(f"✘  {name}: interrupted{where(stopped, function)}.")
        print("   Hint: does each loop come to an end? Print what changes in it, and try it on a small input.")
        return
    print(f"✔  {name}: solved")
    remember(key)


@contextmanager
def _says_if_slow(name: str) -> Iterator[None]:
    said = (
        f"   {name}: this check has run for {SLOW} seconds. Is there a loop that could be one operation on tensors, or "
        "that never ends? Interrupt it with ■ above, or with Kernel → Interrupt."
    )
    timer = Timer(SLOW, print, [said])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
