"""Files that are there whole or not at all, also where a disk is full or a run is stopped."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write to. What is there in the end takes the place of ``path``; if not, it is removed.

    ``with written_whole(path) as unfinished: unfinished.write_text(...)``
    """
    unfinished = path.with_name(f".writing-{path.name}")
    with removed_on_failure(unfinished):
        yield unfinished
        os.replace(unfinished, path)


@contextmanager
def removed_on_failure(path: Path) -> Iterator[None]:
    """What is half-written at ``path`` does not stay there."""
    try:
        yield
    except BaseException:
        remove(path)
        raise


def remove(path: Path) -> None:
    """A file or a folder, if it is there and can be removed."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
