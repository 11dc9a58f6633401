"""A folder of the user's own: pictures or sounds, and ``captions.csv`` or ``captions.jsonl`` that say what they are."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmlearn.data.hashing import fingerprint
from mmlearn.data.read.captions import SPLITS, caption_lines, column, split_of
from mmlearn.data.read.files import Files, inside
from mmlearn.data.read.pictures import ImageText, read_picture
from mmlearn.data.read.sound import SoundSample, probe_sound
from mmlearn.names import choices

IMAGE_COLUMNS = ("image", "file_name", "filename", "file", "path")
SOUND_COLUMNS = ("sound", "audio", "recording")
PICTURE_COLUMNS = ("image", "picture")  # beside sounds
CAPTION_COLUMNS = ("caption", "text", "description")


class Entry(NamedTuple):
    """A line of the captions file: what is said, of which files, and by whom."""

    caption: str
    image: str | None
    sound: str | None
    speaker: str


class Folder(Files):
    """Pictures with captions from a folder, or sounds with captions and perhaps pictures.

    ``captions.csv`` has a header with ``image`` (a path inside the folder) and ``caption``; ``captions.jsonl`` has one
    such object a line. Where there is a column ``sound``, samples are sounds; ``image`` and ``speaker`` may stand
    beside it. A file may have several lines. Where there is a column ``split`` with train, val or test, it decides;
    otherwise 80, 10 and 10 % go to each, by the first caption of a file: no file stands in two splits, and no caption
    does where each file has one. Pictures have ``size`` pixels a side; at most ``seconds`` of a sound are taken.

    ``notes`` has a line for each sound that is converted, because of its rate or its channels; once it is read, also
    where it is cut, silent or clipped. With ``skip_bad`` all files are read at once, what cannot be read is left out,
    and ``skipped`` lists why. Without it ``FileNotFoundError`` and ``ValueError`` name the line of the captions that is
    wrong, the file that is missing, or the sound of which the header is wrong; of others reading them does.
    """

    def __init__(
        self, folder: str | Path, split: str = "train", *, seconds: float = 10, size: int = 64, skip_bad: bool = False
    ):
        super().__init__()
        self.folder, self.seconds, self.size = Path(folder), seconds, size
        if split not in SPLITS:
            raise ValueError(f"A folder has no split {split!r}; {choices(split, SPLITS)}.")
        if not self.folder.is_dir():
            raise FileNotFoundError(f"There is no folder {self.folder}.")
        self.holds = "sounds" if names_sounds(self.folder) else "pictures"
        entries = [entry for entry, where in self._entries() if split in (where, "all")]
        files = dict.fromkeys((entry.image, entry.sound) for entry in entries)
        if skip_bad:
            good = {of for of in files if self.can_read(self._read, *of)}
            entries = [entry for entry in entries if (entry.image, entry.sound) in good]
        else:
            for of in files:
                self._look_at(*of)
        if not entries:
            raise ValueError(f"{folder} has no {split} {self.holds}{' that can be read' if self.skipped else ''}.")
        self.entries = entries

    def _entries(self) -> Iterator[tuple[Entry, str]]:
        """Every line with its split."""
        first: dict[Path, str] = {}  # the first caption of each file
        sounds = self.holds == "sounds"
        for where, line in caption_lines(self.folder):
            sound = column(line, SOUND_COLUMNS, where) if sounds else None
            image = None if sounds else column(line, IMAGE_COLUMNS, where)
            if sounds and any(name in line for name in PICTURE_COLUMNS):
                image = column(line, PICTURE_COLUMNS, where)
            caption = column(line, CAPTION_COLUMNS, where)
            files = [inside(self.folder, name, where) for name in (sound, image) if name]
            split = str(line.get("split") or split_of(first.setdefault(files[0], caption))).strip()
            if split not in SPLITS[:3]:
                raise ValueError(f"{where}: split is train, val or test, not {split!r}.")
            yield Entry(caption, image, sound, str(line.get("speaker") or "").strip()), split

    def _look_at(self, image: str | None, sound: str | None) -> None:
        for name, kind in ((sound, "sound"), (image, "picture")):
            if name and not (self.folder / name).is_file():
                raise FileNotFoundError(f"There is no {kind} {self.folder / name}, though the captions name it.")
        if sound and (note := probe_sound(self.folder / sound)):
            self.note([note])

    def _read(self, image: str | None, sound: str | None) -> None:
        if image:
            read_picture(self.folder / image, self.size)
        if sound:
            self.read_sound(self.folder / sound, self.seconds)

    def __len__(self) -> int:
        return len(self.entries)

    def fingerprint(self) -> str:
        """Of the lines, their order, and what the files hold."""
        files = dict.fromkeys(name for entry in self.entries for name in (entry.image, entry.sound) if name)
        return fingerprint(self.entries, [(self.folder / name, 0, -1) for name in files])

    def caption(self, index: int) -> str:
        """A caption without its picture or sound."""
        return self.entries[index].caption

    def __getitem__(self, index: int) -> ImageText | SoundSample:
        caption, image, sound, speaker = self.entries[index]
        picture = read_picture(self.folder / image, self.size) if image else None
        if not sound:
            return ImageText(picture, caption, image)
        waveform, notes = self.read_sound(self.folder / sound, self.seconds)
        return SoundSample(waveform, caption, sound, speaker, picture, notes)


def names_sounds(folder: str | Path) -> bool:
    """Whether the captions file of a folder has a column of sounds."""
    try:
        _, first = next(caption_lines(Path(folder)))
    except (ValueError, OSError, StopIteration):  # whoever reads it as pictures says what is wrong
        return False
    return any(name in first for name in SOUND_COLUMNS)
