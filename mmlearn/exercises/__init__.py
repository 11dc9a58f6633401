"""Exercises: checks that say at once which property fails, the list of tasks, and the student's progress."""

from mmlearn.exercises.chance import expect_rows_differ, expect_seeded, expect_share
from mmlearn.exercises.checks import Task, attempt, task
from mmlearn.exercises.examples import by_hand
from mmlearn.exercises.expectations import (
    NOT_SOLVED,
    CheckFailed,
    agreement,
    case,
    expect,
    expect_boolean,
    expect_close,
    expect_log,
    expect_not,
    expect_number,
    expect_one_number,
    expect_parts,
    expect_seen,
    expect_tensor,
    expect_whole,
    near,
    over,
)
from mmlearn.exercises.folders import (
    exercise_folders,
    exercises_folder,
    experiments,
    find_task,
    load_checks,
    load_part,
    tasks,
)
from mmlearn.exercises.inputs import new_seed
from mmlearn.exercises.learning import (
    expect_constant,
    expect_finite_gradient,
    expect_sure_and_wrong,
    expect_trains,
    expect_zero,
)
from mmlearn.exercises.observation import Experiment, expect_observed, experiment, observe
from mmlearn.exercises.progress import count_hints, forget, hints_given, progress_file, solved
from mmlearn.exercises.solutions import solution, steps

__all__ = [
    "NOT_SOLVED", "CheckFailed", "Experiment", "Task", "agreement", "attempt", "by_hand", "case", "count_hints",
    "exercise_folders", "exercises_folder", "expect", "expect_boolean", "expect_close", "expect_constant",
    "expect_finite_gradient", "expect_log", "expect_not", "expect_number", "expect_observed", "expect_one_number",
    "expect_parts", "expect_rows_differ", "expect_seeded", "expect_seen", "expect_share", "expect_sure_and_wrong",
    "expect_tensor", "expect_trains", "expect_whole", "expect_zero", "experiment", "experiments", "find_task", "forget",
    "hints_given", "load_checks", "load_part", "near", "new_seed", "observe", "over", "progress_file", "solution",
    "solved", "steps", "task", "tasks",
]  # fmt: skip
