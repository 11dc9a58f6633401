"""Data sets of the user's own files, which remember what could not be read, and what is to be known of them."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch.utils.data import Dataset

from mmlearn.data.hashing import stream

ADVICE = "Add --skip-bad to leave out what cannot be read."
TRIES = 100  # samples that are asked in the place of one that cannot be read


def inside(folder: Path, name: str, where: str) -> Path:
    """The file of this name in a folder. ``ValueError`` where it leads out of it, also by a link, or is no name."""
    try:
        file = (folder / name).resolve()
        file.is_file()  # which fails for a name that is too long
    except (OSError, ValueError, RuntimeError) as error:  # the last of links in a circle
        raise ValueError(f"{where}: {name!r:.60} cannot be a path ({type(error).__name__}).") from error
    if not file.is_relative_to(folder.resolve()):
        raise ValueError(f"{where}: {name!r:.60} is outside the folder.")
    return file


def with_advice(error: Exception) -> Exception:
    """The same error, where what could not be read may also be left out."""
    kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
    text = str(error)
    return kind(text if ADVICE in text else f"{text.rstrip('.')}. {ADVICE}")


class Part(NamedTuple):
    """A file of a data set, or a part of one, what fails where it is broken, and what it is called within a file.

    A length of -1 stands for the rest of the file.
    """

    path: Path
    read: Callable[[], Any]
    start: int = 0
    length: int = -1
    name: str = ""


class EmptySplit(ValueError):
    """A folder has nothing in this split, and may have something in another."""


class Files(Dataset):
    """Files of which some cannot be read, which ends a run, or with ``skip_bad`` is noted.

    ``skipped`` lists what was left out at the start, and ``bad`` what turned out to be broken later: there another
    sample is taken, the same one whenever and by whichever process it is asked for. ``notes`` have a line for each
    sound that is converted, cut, silent or clipped, and of a folder with captions each picture that is not square, as
    far as this process has read them.

    So that a run can go on with the very same samples, ``kept()`` says what it must know for that, which is given as
    ``as_before``; ``told()`` is what the data say, in their order, and ``parts()`` are the files they lie in.
    """

    holds = "sounds"

    def __init__(self, *, skip_bad: bool = False, as_before: dict[str, Any] | None = None):
        self.skip_bad, self.as_before = skip_bad, as_before
        self.samples: list[Any] = []  # what is known of each before it is read
        self.skipped: list[str] = []
        self.bad: list[str] = []
        self._new_bad: list[str] = []
        self._left_out: set[tuple] = set()
        self._notes: dict[str, str] = {}  # by the name of the file
        self._new_notes: list[str] = []

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.first_good(index, self.sample)

    def sample(self, index: int) -> Any:
        """A sample. ``FileNotFoundError`` and ``ValueError`` where it cannot be read."""
        raise NotImplementedError

    def caption(self, index: int) -> str:
        """A caption without its picture or sound."""
        raise NotImplementedError

    def parts(self) -> list[Part]:
        """The files that the data lie in, each once."""
        raise NotImplementedError

    def told(self) -> list[Any]:
        """What the data say, in their order."""
        return self.samples

    def kept(self) -> dict[str, Any]:
        """What must be known to have the same samples again."""
        return {"left_out": sorted(self._left_out, key=repr)}

    def first_good(self, index: int, read: Callable[[int], Any]) -> Any:
        """``read(index)``, or if that cannot be read, and bad ones are skipped, of a sample that a hash draws."""
        for attempt in range(TRIES):
            try:
                return read(index if not attempt else int(stream("instead", index, attempt) % len(self)))
            except (OSError, ValueError) as error:
                self.leave_out(error)
        raise ValueError(f"None of {TRIES} {self.holds} can be read, such as: {self.bad[0]}")

    def unread(self, keys: Iterable[tuple], read: Callable) -> set[tuple]:
        """Those of these of which ``read(*key)`` fails, and ``skipped`` says why; or those that failed before."""
        if self.as_before is not None:
            self._left_out = {tuple(key) for key in self.as_before["left_out"]}
            self.skipped += [
                f"{' and '.join(filter(None, key))}, as before" for key in sorted(self._left_out, key=repr)
            ]
        elif self.skip_bad:
            for key in dict.fromkeys(keys):
                try:
                    read(*key)
                except (OSError, ValueError) as error:
                    self._left_out.add(key)
                    self.skipped.append(str(error))
        return self._left_out

    def left_out_row(self, error: Exception) -> None:
        """Note why a line of captions, or a shard, cannot be read. Raises that where nothing is skipped."""
        if not self.skip_bad and self.as_before is None:
            raise with_advice(error) from error
        self.skipped.append(str(error))

    def leave_out(self, error: Exception) -> None:
        """Note what turned out to be broken. Raises it where nothing is skipped."""
        if not self.skip_bad:
            raise with_advice(error) from error
        self.note_bad([str(error)])

    def note_bad(self, lines: Iterable[str]) -> None:
        """Add to what could not be read."""
        new = [line for line in dict.fromkeys(lines) if line not in self.bad]
        self.bad += new
        self._new_bad += new

    def new_bad(self) -> list[str]:
        """What could not be read and was not asked for yet."""
        new, self._new_bad = self._new_bad, []
        return new

    @property
    def notes(self) -> list[str]:
        """A line for each file of which something is to be known."""
        return list(self._notes.values())

    def note(self, lines: Sequence[str]) -> None:
        """Add to the notes. What is known of a file is replaced."""
        for line in lines:
            name = line.rpartition(": ")[0]
            if self._notes.get(name) != line:
                self._notes[name] = line
                self._new_notes.append(line)

    def new_notes(self) -> list[str]:
        """The notes that have come since this was asked last."""
        new, self._new_notes = self._new_notes, []
        return new


def in_short(notes: Sequence[str], holds: str = "sounds") -> str:
    """How many sounds these notes are about, how often each thing is said, and the first of them; in one line."""
    said = Counter(
        words.partition(", ")[0].strip(".")  # numbers may follow
        for note in notes
        for words in note.rpartition(": ")[2].split("; ")
    )
    kinds = ", ".join(f"{count} × {words}" for words, count in said.most_common(9))
    return f"{len(notes)} {holds} ({kinds}), such as: {notes[0]}"
