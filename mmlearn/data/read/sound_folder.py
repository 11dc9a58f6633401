"""A folder of the user's own: sounds, and ``captions.csv`` or ``captions.jsonl`` that say what is heard in them."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmlearn.data.read.folder import CAPTION_COLUMNS, SPLITS, caption_lines, column, split_of
from mmlearn.data.read.pictures import read_picture
from mmlearn.data.read.sound import SoundSample, probe_sound
from mmlearn.data.read.sound_notes import SoundSet
from mmlearn.names import choices

SOUND_COLUMNS = ("sound", "audio", "recording")
PICTURE_COLUMNS = ("image", "picture")


class _Row(NamedTuple):
    sound: str
    caption: str
    image: str | None
    speaker: str


class SoundFolder(SoundSet):
    """Sounds with captions, and pictures where the captions file names them, from a folder.

    ``captions.csv`` has a header with ``sound`` (a path inside the folder) and ``caption``, and perhaps ``image`` and
    ``speaker``; ``captions.jsonl`` has one such object a line. A sound may have several lines. Where there is a column
    ``split`` with train, val or test, it decides; otherwise 80, 10 and 10 % go to each, by the first caption of a
    sound. At most ``seconds`` of a sound are taken, however long it is; pictures have ``size`` pixels a side.

    ``notes`` has a line for each sound that is converted, because of its rate or its channels; once it is read, also
    where it is cut, silent or clipped. With ``skip_bad`` all are read at once, what cannot be read is left out, and
    ``skipped`` lists why. Without it ``FileNotFoundError`` and ``ValueError`` name the file of which the header is
    wrong, or the line of the captions.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str = "train",
        *,
        seconds: float = 10,
        size: int = 64,
        skip_bad: bool = False,
    ):
        super().__init__()
        self.folder, self.seconds, self.size = Path(folder), seconds, size
        if split not in SPLITS:
            raise ValueError(f"A folder has no split {split!r}; {choices(split, SPLITS)}.")
        if not self.folder.is_dir():
            raise FileNotFoundError(f"There is no folder {self.folder}.")
        rows = [row for row, where in _rows(self.folder) if split in (where, "all")]
        self.skipped: list[str] = []
        look = self._read_whole if skip_bad else self._look_at
        good = {files: look(*files) for files in dict.fromkeys((row.sound, row.image) for row in rows)}
        self.rows = [row for row in rows if good[row.sound, row.image]]
        if not self.rows:
            raise ValueError(f"{self.folder} has no {split} sounds{' that can be read' if self.skipped else ''}.")

    def _look_at(self, sound: str, image: str | None) -> bool:
        for name, kind in ((sound, "sound"), (image, "picture")):
            if name and not (self.folder / name).is_file():
                raise FileNotFoundError(f"There is no {kind} {self.folder / name}, though the captions name it.")
        if note := probe_sound(self.folder / sound):
            self.note([note])
        return True

    def _read_whole(self, sound: str, image: str | None) -> bool:
        try:
            if image:
                read_picture(self.folder / image, self.size)
            self._hear(self.folder / sound, self.seconds)
        except (OSError, ValueError) as error:
            self.skipped.append(str(error))
            return False
        return True

    def __len__(self) -> int:
        return len(self.rows)

    def caption(self, index: int) -> str:
        """A caption without its sound."""
        return self.rows[index].caption

    def __getitem__(self, index: int) -> SoundSample:
        row = self.rows[index]
        waveform, notes = self._hear(self.folder / row.sound, self.seconds)
        image = read_picture(self.folder / row.image, self.size) if row.image else None
        return SoundSample(waveform, row.caption, row.sound, row.speaker, image, notes)


def names_sounds(folder: str | Path) -> bool:
    """Whether the captions file of a folder has a column of sounds."""
    try:
        lines, _ = caption_lines(Path(folder))
        _, first = next(lines)
    except (ValueError, OSError, StopIteration):  # whoever reads it as pictures says what is wrong
        return False
    return any(name in first for name in SOUND_COLUMNS)


def _rows(folder: Path) -> Iterator[tuple[_Row, str]]:
    """Every line with its split."""
    lines, path = caption_lines(folder)
    first: dict[Path, str] = {}  # the first caption of each sound
    for number, line in lines:
        where = f"{path}, line {number}"
        caption = column(line, CAPTION_COLUMNS, where)
        sound = column(line, SOUND_COLUMNS, where)
        has_picture = any(name in line for name in PICTURE_COLUMNS)
        image = column(line, PICTURE_COLUMNS, where) if has_picture else None
        files = [_inside(folder, name, where) for name in (sound, image) if name]
        split = str(line.get("split") or split_of(first.setdefault(files[0], caption))).strip()
        if split not in SPLITS[:3]:
            raise ValueError(f"{where}: split is train, val or test, not {split!r}.")
        yield _Row(sound, caption, image, str(line.get("speaker") or "").strip()), split


def _inside(folder: Path, name: str, where: str) -> Path:
    try:
        file = (folder / name).resolve()
    except (OSError, ValueError) as error:
        raise ValueError(f"{where}: {name[:60]!r} cannot be a path ({error}).") from error
    if not file.is_relative_to(folder.resolve()):
        raise ValueError(f"{where}: {name!r} is outside the folder.")
    return file
