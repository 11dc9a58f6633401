"""Files that are there whole or not at all, also where a disk is full or a run is stopped."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write to: ``with written_whole(path) as unfinished: unfinished.write_text(...)``.

    When the block ends, what is there takes the place of ``path``; when it raises, that is removed, and ``path`` stays
    as it was. A link stays a link, and a device is written to as it is. It is not synced: after a power cut a file may
    be empty. Raises ``FileNotFoundError`` where nothing was written, and ``OSError`` as writing does.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        yield path
        return
    unfinished = path.with_name(f".writing-{os.getpid()}-{path.name}")  # of two processes each has its own
    remove(unfinished)
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
    """Remove a file, a link or a folder, if it is there; what cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
