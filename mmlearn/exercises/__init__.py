"""Exercises: checks that say at once which property fails, the list of tasks, and the student's progress."""

from mmlearn.exercises.checks import Task, attempt, task
from mmlearn.exercises.expectations import (
    NOT_SOLVED,
    CheckFailed,
    agreement,
    case,
    expect,
    expect_boolean,
    expect_close,
    expect_constant,
    expect_log,
    expect_not,
    expect_number,
    expect_parts,
    expect_seeded,
    expect_share,
    expect_tensor,
    expect_trains,
    expect_whole,
    expect_zero,
    near,
    over,
)
from mmlearn.exercises.folders import exercise_folders, exercises_folder, load_checks, load_part, tasks
from mmlearn.exercises.inputs import new_seed
from mmlearn.exercises.progress import progress_file, solved

__all__ = [
    "NOT_SOLVED", "CheckFailed", "Task", "agreement", "attempt", "case", "exercise_folders", "exercises_folder",
    "expect", "expect_boolean", "expect_close", "expect_constant", "expect_log", "expect_not", "expect_number",
    "expect_parts", "expect_seeded", "expect_share", "expect_tensor", "expect_trains", "expect_whole", "expect_zero",
    "load_checks", "load_part", "near", "new_seed", "over", "progress_file", "solved", "task", "tasks",
]  # fmt: skip
