"""Where mmlearn keeps what belongs to its user, and may be deleted: progress in exercises, features."""

import os
from pathlib import Path


def user_folder() -> Path:
    """``MMLEARN_HOME``, by default ``~/.mmlearn``."""
    return Path(os.environ.get("MMLEARN_HOME") or Path.home() / ".mmlearn")
