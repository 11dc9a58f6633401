"""Files that are there whole or not at all, also where a disk is full or a run is stopped, and never behind a link.

A folder may come from a stranger, and a link in it lead to any file of its user.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


def refuse_links(folder: Path, paths: Iterable[Path] | None = None) -> None:
    """``ValueError`` where one of these paths in a folder, or a folder on the way there, is a link, a pipe or the like.

    They are all that the folder holds, unless given. The folder itself may be a link. One whose name is not UTF-8 is
    refused as well, because safetensors reads nothing there.
    """
    try:
        os.fsencode(folder).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{folder} is no name in UTF-8: give another.") from error
    if paths is None:  # what os.walk lists; it follows no links, and what vanishes meanwhile is no error
        paths = (Path(where, name) for where, *names in os.walk(folder) for name in (*names[0], *names[1]))
    for path in paths:
        for one in (path, *path.parents[: len(path.relative_to(folder).parts) - 1]):
            if one.is_symlink():
                raise ValueError(f"{one} is a link, and nothing is written through a link: remove it.")
            if one.exists() and not (one.is_file() or one.is_dir()):
                raise ValueError(f"{one} is a pipe or a device, and no file: remove it.")


def open_unlinked(path: Path, mode: str) -> IO[Any]:
    """Open a file that is written to bit by bit. ``OSError`` where it is a link, or has another name as well."""
    refused = OSError(f"{path} is a link, and nothing is written through a link: remove it.")
    if path.is_symlink():
        raise refused

    def open_file(name: str, flags: int) -> int:
        file = os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)  # which Windows has not
        if os.fstat(file).st_nlink > 1:  # a hard link
            os.close(file)
            raise refused
        return file

    return open(path, mode, opener=open_file)


def is_still(path: Path, before: os.stat_result) -> bool:
    """Whether what lies there is what lay there ``before``: neither gone, nor moved and replaced by another."""
    return path.exists() and os.path.samestat(path.stat(), before)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write to: ``with written_whole(path) as unfinished: unfinished.write_text(...)``.

    When the block ends, what is there takes the place of ``path``; when it raises, that is removed, and ``path`` stays
    as it was. A device such as ``/dev/null`` is written to as it is. It is not synced: after a power cut a file may be
    empty. Raises ``FileNotFoundError`` where nothing was written, and ``OSError`` as writing does, and for a link, a
    pipe or a folder.
    """
    if path.is_symlink() or (path.exists() and not (path.is_file() or path.is_char_device())):
        raise OSError(f"{path} is a link, or no file, and is not written to: remove it.")
    if path.is_char_device():
        yield path
        return
    path = path.resolve()
    unfinished = path.with_name(f".writing-{os.getpid()}-{path.name}")  # of two processes each has its own
    remove(unfinished)
    with removed_on_failure(unfinished):
        yield unfinished
        os.replace(unfinished, path)


@contextmanager
def removed_on_failure(path: Path) -> Iterator[None]:
    """What is half-written at ``path`` does not stay there. Of a full disk the place is told."""
    try:
        yield
    except BaseException as error:
        remove(path)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path.parent)
        raise


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there; what cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


class ProgressStream:
    """A stream for progress, as stderr is: where it fails, as on a full disk, nothing stops."""

    def __init__(self, stream: IO[str]):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what can be handed on."""
        with suppress(OSError):
            self.stream.flush()

    def close(self) -> None:
        """Close it, written or not."""
        with suppress(OSError):
            self.stream.close()
