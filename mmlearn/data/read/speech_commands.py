"""Speech Commands: single spoken words, as they lie on disk for torchaudio's ``SPEECHCOMMANDS``."""

from functools import partial
from pathlib import Path
from typing import Any

from mmlearn.data.read.files import Files, Part, inside, with_advice
from mmlearn.data.read.sound import SoundSample
from mmlearn.names import choices

LISTS = {"val": "validation_list.txt", "test": "testing_list.txt"}
SPLITS = ("train", *LISTS, "all")
VERSIONS = ("", "speech_commands_v0.02", "speech_commands_v0.01")
SPEAKER = "_nohash_"  # between a speaker and the number of the recording


def speech_commands_folder(folder: str | Path) -> Path | None:
    """Where the lists of Speech Commands are: in ``folder`` or where torchaudio unpacks them in it, else ``None``."""
    places = (Path(folder) / archive / version for archive in ("", "SpeechCommands") for version in VERSIONS)
    return next((place for place in places if all((place / name).is_file() for name in LISTS.values())), None)


class SpeechCommands(Files):
    """Recordings of about a second, of which the caption is the word that is spoken.

    ``split`` is train, val, test or all: validation and testing as the published lists have them, training the rest;
    no speaker stands in two. ``words`` are all words, in order. At most ``seconds`` of a recording are taken.

    ``notes`` has a line for each recording that was read so far and is converted, cut, silent or clipped. With
    ``skip_bad`` all are read at once, those that are missing or cannot be read are left out, and ``skipped`` lists why.
    Raises ``FileNotFoundError`` for missing lists or a recording that a list names, and ``ValueError`` for an unknown
    split.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str = "train",
        *,
        seconds: float = 10,
        skip_bad: bool = False,
        as_before: dict[str, Any] | None = None,
    ):
        super().__init__(skip_bad, as_before)
        if split not in SPLITS:
            raise ValueError(f"Speech Commands has no split {split!r}; {choices(split, SPLITS)}.")
        found = speech_commands_folder(folder)
        if found is None:
            raise FileNotFoundError(f"{folder} has no {' and '.join(LISTS.values())}: give the unpacked archive.")
        self.folder, self.seconds = found, seconds
        paths = (path for path in found.glob("*/*.wav") if SPEAKER in path.name)  # noise has no speaker
        recordings = sorted(path.relative_to(found).as_posix() for path in paths)
        self.words = sorted({Path(name).parent.name for name in recordings})
        parts = {part: (found / name).read_text(encoding="utf-8").splitlines() for part, name in LISTS.items()}
        held_out = {name for names in parts.values() for name in names}
        parts |= {"train": [name for name in recordings if name not in held_out], "all": recordings}
        bad = self.unread(((name,) for name in parts[split]), self._listed)
        if not (skip_bad or as_before):
            for name in sorted({*parts[split]} - {*recordings}):
                raise with_advice(FileNotFoundError(f"There is no sound {found / name}, though a list names it."))
        self.names = [name for name in parts[split] if (name,) not in bad]
        if not self.names:
            raise ValueError(f"{found} has no {split} recordings{' that can be read' if self.skipped else ''}.")

    def _listed(self, name: str) -> None:
        if not (self.folder / name).is_file():
            raise FileNotFoundError(f"There is no sound {self.folder / name}, though a list names it.")
        self._recording(name)

    def _recording(self, name: str) -> SoundSample:
        inside(self.folder, name, str(self.folder))
        waveform, notes = self.read_sound(self.folder / name, self.seconds)
        path = Path(name)
        return SoundSample(waveform, path.parent.name, name, path.name.partition(SPEAKER)[0], notes=notes)

    def __len__(self) -> int:
        return len(self.names)

    def told(self) -> list[str]:
        """The recordings in their order."""
        return self.names

    def parts(self) -> list[Part]:
        """Each recording."""
        return [Part(self.folder / name, partial(self._recording, name)) for name in self.names]

    def caption(self, index: int) -> str:
        """The word that is spoken, without its sound."""
        return Path(self.names[index]).parent.name

    def sample(self, index: int) -> SoundSample:
        """A recording with its word."""
        return self._recording(self.names[index])
