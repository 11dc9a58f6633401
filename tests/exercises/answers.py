"""All exercises, their tasks and the answers to them, which lie in the folders beside this file."""

from pathlib import Path

import pytest

from mmlearn.exercises import CheckFailed, exercise_folders, load_part, tasks

FOLDERS = exercise_folders()
TASKS_OF = {folder.name: tasks(folder) for folder in FOLDERS}
TASKS = [task for found in TASKS_OF.values() for task in found]
ANSWERS = {folder.name: load_part(Path(__file__).parent / folder.name, "mistakes") for folder in FOLDERS}
each_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
each_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


def is_written_in_the_check(task):
    """Where what is asked for is nothing that the library has."""
    return task.reference.__module__ == task.check.__module__


def told(task, function):
    """What the check says of a function; it must fail."""
    with pytest.raises(CheckFailed) as failure:
        task.check(function)
    return str(failure.value)
