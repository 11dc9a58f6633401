"""Every kind of wrong answer that applies to a task is rejected, and the table of kinds leaves no task out."""

import kinds
import pytest

from mmlearn.exercises import CheckFailed, exercise_folders, tasks

TASKS = [task for folder in exercise_folders() for task in tasks(folder)]
WRONG = [wrong for task in TASKS for wrong in kinds.wrong_answers(task)]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong.task.name}: {wrong.kind}")
def test_a_wrong_answer_of_this_kind_is_rejected(wrong):
    with pytest.raises(CheckFailed) as failure:
        wrong.task.check(wrong.function)
    message = str(failure.value)
    assert any(told in message for told in wrong.told)
    assert "Hint: " in message
    assert "\n" not in message
    wrong.task.check(wrong.task.reference)  # and it has spoiled nothing for the right one


def test_every_task_says_what_is_learned_from_it():
    unlearned = [name for names in kinds.NOT_LEARNED.values() for name in names.split()]
    assert sorted([*kinds.LEARNED, *unlearned]) == sorted(task.name for task in TASKS)


def test_every_kind_names_tasks_that_there_are():
    names = {task.name for task in TASKS}
    listed = [kinds.LARGE, kinds.SMALL, kinds.IDS, kinds.AXES, " ".join(kinds.SWAPPED)]
    assert {name for line in listed for name in line.split()} <= names


def test_what_is_learned_are_the_first_arguments():
    for task in TASKS:
        learned = kinds.LEARNED.get(task.name, "").split()
        assert list(task.reference.__annotations__)[: len(learned)] == learned


def test_every_task_is_tested_for_some_kind():
    assert {task.name for task in TASKS if not any(kinds.wrong_answers(task))} == set()
