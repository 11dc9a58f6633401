"""The data that comes with the package, in ``mmlearn/data/archives``: one folder for what shares a licence."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ARCHIVES = Path(__file__).parent.parent / "archives"


@contextmanager
def reading(archive: str, file: str) -> Iterator[Path]:
    """The path of this file. ``FileNotFoundError`` where there is none, ``ValueError`` for any error while reading."""
    path = ARCHIVES / archive / file
    advice = f"Reinstall mmlearn, or run `python -m mmlearn.data.build {archive}`."
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. {advice}")
    try:
        yield path
    except Exception as error:  # each format's reader raises its own
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}). {advice}") from error
