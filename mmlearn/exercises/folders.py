"""The exercises on disk: where they are, what is in each, and how their checks are loaded."""

import importlib.util
from pathlib import Path
from types import ModuleType

from mmlearn.chapters import PACKAGE
from mmlearn.exercises.checks import Task
from mmlearn.exercises.observation import Experiment
from mmlearn.suggestions import suggest

EACH = "[0-9][0-9]*_*/checks.py"  # 07_contrastive, 13a_hearing


def exercises_folder() -> Path:
    """The exercises of this checkout, or those that came with the installed package."""
    for folder in (PACKAGE.parent / "exercises", PACKAGE / "_shipped" / "exercises"):
        if any(folder.glob(EACH)):
            return folder
    raise FileNotFoundError(
        "No exercises came with this installation of mmlearn; install it from a checkout or a wheel."
    )


def exercise_folders(root: Path | None = None) -> list[Path]:
    """The folders of all exercises, in order."""
    return sorted(path.parent for path in (root or exercises_folder()).glob(EACH))


def load_checks(name: str) -> ModuleType:
    """The checks of an exercise, wherever its notebook was copied. ``ValueError`` lists what there is."""
    known = {folder.name: folder for folder in exercise_folders()}
    if name not in known:
        raise ValueError(f"There is no exercise {name!r}; {suggest(name, known)}.")
    return load_part(known[name], "checks")


def load_part(exercise: Path, part: str) -> ModuleType:
    """The checks of an exercise folder: ``checks.py`` and what lies beside it as ``checks_TOPIC.py``; or another part.

    All of them come as one module, in which dictionaries of the same name are joined.
    """
    joined = ModuleType(f"mmlearn_exercise_{exercise.name}_{part}")
    for path in [exercise / f"{part}.py", *sorted(exercise.glob(f"{part}_*.py"))]:
        spec = importlib.util.spec_from_file_location(f"mmlearn_exercise_{exercise.name}_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, value in vars(module).items():
            if not name.startswith("__"):
                earlier = getattr(joined, name, None) if isinstance(value, dict) else None
                setattr(joined, name, earlier | value if earlier else value)
    return joined


def tasks(exercise: Path) -> list[Task]:
    """The tasks of an exercise folder, in the order of its checks."""
    return [value.task for value in vars(load_part(exercise, "checks")).values() if hasattr(value, "task")]


def experiments(exercise: Path) -> list[Experiment]:
    """The experiments of an exercise folder, in the order of its checks."""
    found = vars(load_part(exercise, "checks")).values()
    return [value.experiment for value in found if hasattr(value, "experiment")]


def find_task(name: str) -> Task | Experiment:
    """The task or experiment of this name, TASK or EXERCISE/TASK.

    ``ValueError`` names the nearest, or says which are meant.
    """
    known = [one for folder in exercise_folders() for one in (*tasks(folder), *experiments(folder))]
    found = [task for task in known if name in (task.name, f"{task.exercise}/{task.name}")]
    if len(found) == 1:
        return found[0]
    if found:
        which = ", ".join(f"{task.exercise}/{task.name}" for task in found)
        raise ValueError(f"Several exercises have a task {name!r}: {which}.")
    nearest = suggest(name, [task.name for task in known]).partition("choose from")[0]
    raise ValueError(f"There is no task {name!r}; {nearest}mmlearn exercises lists them.")
