"""Data sets of sounds that remember what is to be known of those they have read, and how that is said in short."""

from collections.abc import Sequence
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


class SoundSet(Dataset):
    """Files of sounds, and ``notes`` of those that were read or looked at so far."""

    holds = "sounds"

    def __init__(self):
        self._notes: dict[str, str] = {}  # by the name of the file
        self._new: list[str] = []

    @property
    def notes(self) -> list[str]:
        """A line for each sound that is converted, cut, silent or clipped, as far as this process has heard."""
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

    def _hear(self, path: Path, seconds: float) -> tuple[Float[Tensor, "samples"], tuple[str, ...]]:
        """A sound, and what is to be known of it."""
        lines: list[str] = []
        waveform = read_sound(path, seconds=seconds, notes=lines)
        self.note(lines)
        return waveform, tuple(lines)


def in_short(notes: Sequence[str]) -> str:
    """How many sounds these notes are about, how many of each kind, and the first of them; in one line."""
    said = [note.rpartition(": ")[2] for note in notes]
    counts = {kind: sum(words in one for one in said) for words, kind in KINDS.items()}
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    return f"{len(notes)} sounds ({kinds}), such as: {notes[0]}"
