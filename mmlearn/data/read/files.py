"""Data sets of the user's own files, which remember what could not be read, and what is to be known of the sounds."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from mmlearn.data.read.sound import read_sound

# What a note says, by words that it has.
KINDS = {
    "mixed into one": "mixed into one channel",
    "resampled": "resampled",
    "are taken": "cut",
    "silent": "silent",
    "clipped": "clipped",
    "missing": "incomplete",
    "may be cut off": "perhaps incomplete",
}


def inside(folder: Path, name: str, where: str) -> Path:
    """The file of this name in a folder. ``ValueError`` where it leads out of it, also by a link, or is no name."""
    try:
        file = (folder / name).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # the last of links in a circle
        raise ValueError(f"{where}: {name!r:.60} cannot be a path ({type(error).__name__}).") from error
    if not file.is_relative_to(folder.resolve()):
        raise ValueError(f"{where}: {name!r:.60} is outside the folder.")
    return file


class Files(Dataset):
    """Files, of which ``skipped`` lists why some are left out, and ``notes`` what to know of those that were read."""

    holds = "sounds"

    def __init__(self):
        self.skipped: list[str] = []
        self._notes: dict[str, str] = {}  # by the name of the file
        self._new: list[str] = []

    def can_read(self, read: Callable, *files: str | None) -> bool:
        """Whether ``read(*files)`` succeeds; where not, ``skipped`` says why."""
        try:
            read(*files)
        except (OSError, ValueError) as error:
            self.skipped.append(str(error))
            return False
        return True

    def read_sound(self, path: Path, seconds: float) -> tuple[Float[Tensor, "samples"], tuple[str, ...]]:
        """A sound, and what is to be known of it, which is noted besides."""
        lines: list[str] = []
        waveform = read_sound(path, seconds=seconds, notes=lines)
        self.note(lines)
        return waveform, tuple(lines)

    @property
    def notes(self) -> list[str]:
        """A line for each sound that is converted, cut, silent or clipped, as far as this process has read them."""
        return list(self._notes.values())

    def note(self, lines: Sequence[str]) -> None:
        """Add to the notes. What is known of a file is replaced."""
        for line in lines:
            name = line.rpartition(": ")[0]
            if self._notes.get(name) != line:
                self._notes[name] = line
                self._new.append(line)

    def new_notes(self) -> list[str]:
        """The notes that have come since this was asked last."""
        new, self._new = self._new, []
        return new


def in_short(notes: Sequence[str], holds: str = "sounds") -> str:
    """How many sounds these notes are about, how many of each kind, and the first of them; in one line."""
    said = [note.rpartition(": ")[2] for note in notes]
    counts = {kind: sum(words in one for one in said) for words, kind in KINDS.items()}
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    return f"{len(notes)} {holds}{f' ({kinds})' if kinds else ''}, such as: {notes[0]}"
