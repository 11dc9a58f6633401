"""What a student has solved, and how many hints were asked for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmlearn.files import written_whole
from mmlearn.user_folder import user_folder


def progress_file() -> Path:
    """Where solved tasks are remembered: under ``MMLEARN_HOME``, by default ``~/.mmlearn``."""
    return user_folder() / "progress.json"


def hints_file() -> Path:
    """Where the number of hints that were given for each task is remembered, beside :func:`progress_file`."""
    return user_folder() / "hints.json"


def solved() -> set[str]:
    """The solved tasks, as ``EXERCISE/TASK``. A damaged file counts as empty."""
    read = _read(progress_file)
    return {name for name in read if isinstance(name, str)} if isinstance(read, list) else set()


def remember(name: str) -> None:
    """Add a solved task, ``EXERCISE/TASK``; where that cannot be saved it is said, and nothing stops."""
    _save(progress_file, sorted(solved() | {name}))


def forget(name: str) -> None:
    """Take a task from those that are solved."""
    if name in solved():
        _save(progress_file, sorted(solved() - {name}))


def hints_given(name: str) -> int:
    """How many hints were given for a task, ``EXERCISE/TASK``. A damaged file counts as empty."""
    return _hints().get(name, 0)


def count_hints(name: str, count: int) -> None:
    """Remember that so many hints were given for a task."""
    hints = {key: given for key, given in _hints().items() if key != name}
    _save(hints_file, hints | ({name: count} if count else {}))


def _hints() -> dict[str, int]:
    read = _read(hints_file)
    return {name: count for name, count in read.items() if isinstance(count, int)} if isinstance(read, dict) else {}


def _read(file: Callable[[], Path]) -> Any:
    """What a file says; nothing where it is damaged, or a pipe that may never say anything."""
    try:
        return json.loads(file().read_text()) if file().is_file() else None
    except (OSError, ValueError, RecursionError):
        return None


def _save(file: Callable[[], Path], value: Any) -> None:
    try:
        path = file()
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as unfinished:
            unfinished.write_text(json.dumps(value, indent=1))
    except OSError as error:
        print(f"   (progress was not saved: {error})")
