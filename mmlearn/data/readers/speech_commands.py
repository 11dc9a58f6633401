"""Speech Commands: single spoken words, as they lie on disk for torchaudio's ``SPEECHCOMMANDS``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmlearn.data.readers.files import inside, with_advice
from mmlearn.data.readers.folder import Entry, Folder

LISTS = {"val": "validation_list.txt", "test": "testing_list.txt"}
VERSIONS = ("", "speech_commands_v0.02", "speech_commands_v0.01")
SPEAKER = "_nohash_"  # between a speaker and the number of the recording


def speech_commands_folder(folder: str | Path) -> Path | None:
    """Where the lists of Speech Commands are: in ``folder`` or where torchaudio unpacks them in it, else ``None``."""
    positions = (Path(folder) / archive / version for archive in ("", "SpeechCommands") for version in VERSIONS)
    return next(
        (position for position in positions if all((position / name).is_file() for name in LISTS.values())), None
    )


class SpeechCommands(Folder):
    """Recordings of about a second, of which the caption is the word that is spoken.

    ``split`` is train, val, test or all: validation and testing as the published lists have them, training the rest;
    no speaker stands in two. ``words`` are all words, in order. At most ``seconds`` of a recording are taken, and its
    notes come when it is read. Raises ``FileNotFoundError`` for missing lists or a recording that a list names, and all
    else as :class:`Folder` does.
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
        found = speech_commands_folder(folder)
        if found is None:
            raise FileNotFoundError(f"{folder} has no {' and '.join(LISTS.values())}: give the unpacked archive.")
        super().__init__(found, split, seconds=seconds, skip_bad=skip_bad, as_before=as_before)

    def _entries(self) -> Iterator[tuple[Entry, str]]:
        paths = (path for path in self.folder.glob("*/*.wav") if SPEAKER in path.name)  # noise has no speaker
        recordings = sorted(path.relative_to(self.folder).as_posix() for path in paths)
        self.words = sorted({Path(name).parent.name for name in recordings})
        lists = {split: (self.folder / name).read_text(encoding="utf-8").splitlines() for split, name in LISTS.items()}
        held_out = {*lists["val"], *lists["test"]}
        lists |= {"train": [name for name in recordings if name not in held_out], "all": recordings}
        for name in lists[self.split]:
            path = Path(name)
            yield Entry(path.parent.name, None, name, path.name.partition(SPEAKER)[0]), self.split

    def _look_at(self, image: None, sound: str) -> None:
        if not inside(self.folder, sound, str(self.folder)).is_file():
            raise with_advice(FileNotFoundError(f"There is no sound {self.folder / sound}, though a list names it."))

    def _read(self, image: None, sound: str) -> tuple[Any, Any, tuple[str, ...]]:
        inside(self.folder, sound, str(self.folder))
        return super()._read(image, sound)
