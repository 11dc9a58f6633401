"""Each task in one test: right answers pass, and every wrong one is told what is wrong with it, in one line."""

from contextlib import contextmanager

import jaxtyping
import kinds
import torch
from answers import ANSWERS, TASKS, each_task, told
from jaxtyping import Bool
from kinds import Wrong

from mmlearn.exercises import NOT_SOLVED, CheckFailed, solution, steps

IMPORTS = "import math\nimport torch\nimport torch.nn.functional as F\nfrom einops import rearrange, reduce\n"
NO_TENSOR = (  # tasks that take numbers or texts alone
    "sinusoidal_positions melscale_fbanks inheritance_rate draw_spans utilisation sharded_bytes scaled_rate "
    "block_flops recomputed_bytes kept_by_block edit_rate bleu cider_d swiglu_width window_mask answered_right"
)


@each_task
def test_right_answers_pass_and_each_wrong_one_is_told_what_is_wrong(task, draws):
    check_that_it_says_what_it_is(task)
    task.check(task.reference)
    with annotations_unchecked():
        check_solution(task)
        check_written_answer(task)
        for _ in range(3):
            task.check(ANSWERS[task.exercise].RIGHT[task.name])  # whose lines are not those of the library
        check_what_comes_back(task)
        check_wrong_answers(task, draws)
    task.check(task.reference)  # no wrong answer has spoiled anything for the right one


@contextmanager
def annotations_unchecked():
    """As for a student, to whom no annotation says what is wrong before the check does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def check_that_it_says_what_it_is(task):
    assert 1 <= task.difficulty <= 5
    assert 1 <= task.minutes <= 60
    assert task.reference.__name__ == task.name  # so that "import it" solves it
    task.example(task.reference)  # the one that its statement works out by hand


def check_solution(task):
    """It passes on inputs that are fresh each time, and leaves the student's own seed alone."""
    before, seen = torch.random.get_rng_state(), []

    def remembers(*arguments, **named):
        seen[-1] += [it.detach().sum().item() if isinstance(it, torch.Tensor) else str(it) for it in arguments]
        return task.reference(*arguments, **named)

    for _ in range(3):
        seen.append([])
        task.check(remembers)
    assert any(one != seen[0] for one in seen)
    assert torch.equal(torch.random.get_rng_state(), before)


def check_written_answer(task):
    """It passes, and its steps are the hints."""
    scope = {}
    exec(IMPORTS + solution(task.exercise, task.name), scope)
    for _ in range(3):
        task.check(scope[task.name])
    words = steps(task.exercise, task.name)
    assert len(words) >= 1
    assert all(step.endswith(".") and len(step) < 400 for step in words)


def check_wrong_answers(task, draws):
    """All are tried, and those that are not told what is wrong with them are named together."""
    answers = ANSWERS[task.exercise]
    mistakes = [
        Wrong(name, function, (fragment,), draws=2)
        for listed in (answers.MISTAKES[task.name], getattr(answers, "RARE", {}).get(task.name, {}))
        for fragment, functions in listed.items()
        for name, function in functions.items()
    ]
    of_kinds = list(kinds.wrong_answers(task))
    messages, complaints = {}, []
    for wrong in (*mistakes, *of_kinds):
        draws.seed(f"{task.name}: {wrong.name}")  # the same numbers, whatever other wrong answers there are
        messages[wrong] = [message_about(task, wrong.function) for _ in range(wrong.draws)]
        complaints += [f"  {wrong.name}: {said}" for said in messages[wrong] if not is_told(wrong, said)]
    assert not complaints, "\n".join([f"{task.name}: wrong answers that pass, or are told another thing:", *complaints])
    assert len({wrong.told for wrong in mistakes}) >= 3
    assert len({messages[wrong][0] for wrong in mistakes}) >= 4
    assert of_kinds


def message_about(task, function):
    try:
        task.check(function)
    except CheckFailed as failure:
        return str(failure)
    return "(it passes)"


def is_told(wrong, said):
    return any(part in said for part in wrong.told) and "Hint: " in said and "\n" not in said


def check_what_comes_back(task):
    """Whatever it is, it is told in one line."""

    def stub(*arguments, **named):
        raise NotImplementedError

    def tasks_stub():
        raise NotImplementedError

    def calls_a_stub(*arguments, **named):
        return tasks_stub()

    def forgets_to_return(*arguments, **named):
        task.reference(*arguments, **named)

    def divides_by_zero(*arguments, **named):
        return 1 / 0

    def changes(*arguments, **named):
        result = task.reference(*arguments, **named)
        for value in (one for given in arguments for one in (given if isinstance(given, list) else [given])):
            if isinstance(value, torch.Tensor):
                value.detach().copy_(~value if value.dtype == torch.bool else value + 1)
        return result

    def spoil(make):
        def spoiled(*arguments, **named):
            result = task.reference(*arguments, **named)
            if isinstance(result, dict):
                return {name: make(value) for name, value in result.items()}
            return tuple(map(make, result)) if isinstance(result, tuple) else make(result)

        return spoiled

    assert told(task, stub) == NOT_SOLVED
    assert "It must return its result; this returns None." in told(task, forgets_to_return)
    message = told(task, divides_by_zero)
    assert "It stops in line " in message
    assert "with ZeroDivisionError: division by zero." in message
    if task.name not in NO_TENSOR.split():
        assert "must leave its arguments as they are" in told(task, changes)
    assert "It must return " in told(task, spoil(lambda it: "a text"))
    assert f"It calls {tasks_stub.__name__}, which is not solved yet." in told(task, calls_a_stub)
    returns = task.reference.__annotations__["return"]
    is_number, is_boolean = returns in (int, float, dict[str, float]), getattr(returns, "dtypes", None) == Bool.dtypes
    told_shape = told(task, spoil(lambda it: torch.zeros(3, 1, 2, dtype=torch.bool if is_boolean else None)))
    assert ("one number, not a Tensor of shape (3, 1, 2)" if is_number else "this one has (3, 1, 2)") in told_shape
    if not is_boolean:
        assert "must be finite" in told(task, spoil(lambda it: it * torch.nan))


# The table of kinds leaves no task out.


def test_every_task_says_what_is_learned_from_it():
    unlearned = [name for names in kinds.NOT_LEARNED.values() for name in names.split()]
    assert sorted([*kinds.LEARNED, *unlearned]) == sorted(task.name for task in TASKS)


def test_every_kind_names_tasks_that_there_are():
    names = {task.name for task in TASKS}
    listed = [kinds.LARGE, kinds.SMALL, kinds.IDS, kinds.AXES, kinds.ALONE, kinds.BELOW, kinds.DEFAULTS]
    listed += [" ".join(kinds.SWAPPED), *(" ".join(getattr(answers, "RARE", {})) for answers in ANSWERS.values())]
    assert {name for line in listed for name in line.split()} <= names


def test_what_is_learned_are_the_first_arguments():
    for task in TASKS:
        learned = kinds.LEARNED.get(task.name, "").split()
        assert list(task.reference.__annotations__)[: len(learned)] == learned
