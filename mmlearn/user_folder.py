"""Where mmlearn keeps what belongs to its user, and may be deleted: progress in exercises, features."""

import os
from pathlib import Path


def user_folder() -> Path:
    """``MMLEARN_HOME``, by default ``~/.mmlearn``. ``FileNotFoundError`` where there is no home."""
    try:
        return Path(os.environ.get("MMLEARN_HOME") or Path.home() / ".mmlearn")
    except RuntimeError as error:  # such as of HOME=~nobody
        raise FileNotFoundError("Your home folder is not known (HOME): set MMLEARN_HOME to a folder.") from error
