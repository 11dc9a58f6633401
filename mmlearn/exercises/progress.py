"""What a student has solved."""

import json
from pathlib import Path

from mmlearn.files import written_whole
from mmlearn.user_folder import user_folder


def progress_file() -> Path:
    """Where solved tasks are remembered: under ``MMLEARN_HOME``, by default ``~/.mmlearn``."""
    return user_folder() / "progress.json"


def solved() -> set[str]:
    """The solved tasks, as ``EXERCISE/TASK``. A damaged file counts as empty."""
    try:
        return {name for name in json.loads(progress_file().read_text()) if isinstance(name, str)}
    except (OSError, ValueError, TypeError):
        return set()


def remember(name: str) -> None:
    """Add a solved task, ``EXERCISE/TASK``; where that cannot be saved it is said, and nothing stops."""
    path = progress_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as unfinished:
            unfinished.write_text(json.dumps(sorted(solved() | {name}), indent=1))
    except OSError as error:
        print(f"   (progress was not saved: {error})")
