"""A folder of the user's own: pictures or sounds, and ``captions.csv`` or ``captions.jsonl`` that say what they are."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mmlearn.data.readers.captions import SPLITS, caption_lines, checked, column, split_of
from mmlearn.data.readers.files import EmptySplit, Files, Part, inside, with_advice
from mmlearn.data.readers.images import ImageText, read_image
from mmlearn.data.readers.sound import SoundSample, probe_sound, read_sound
from mmlearn.suggestions import suggest

IMAGE_COLUMNS = ("image", "file_name", "filename", "file", "path")
SOUND_COLUMNS = ("sound", "audio", "recording")
IMAGE_BESIDE_SOUND_COLUMNS = ("image", "picture")  # beside sounds
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

    With ``skip_bad`` all files are read at once, what cannot be read is left out, lines of the captions as well, and
    ``skipped`` lists why. Without it ``FileNotFoundError`` and ``ValueError`` name the line of the captions that is
    wrong, the file that is missing, or the sound of which the header is wrong; of others reading them does.
    ``as_before`` is what :meth:`kept` said: nothing is read then.
    """

    def __init__(
        self, folder: str | Path, split: str = "train", *, seconds: float = 10, size: int = 64, **options: Any
    ):
        super().__init__(**options)
        self.folder, self.seconds, self.size = Path(folder), seconds, size
        if split not in SPLITS:
            raise ValueError(f"A folder has no split {split!r}; {suggest(split, SPLITS)}.")
        if not self.folder.is_dir():
            raise FileNotFoundError(f"There is no folder {self.folder}.")
        self.split = split
        entries = [entry for entry, where in self._entries() if split in (where, "all")]
        files = dict.fromkeys(entry[1:3] for entry in entries)
        bad = self.unread(files, self._read)
        if not self.skip_bad and self.as_before is None:
            for image, sound in files:
                self._look_at(image, sound)
        self.samples = [entry for entry in entries if entry[1:3] not in bad]
        if not self.samples:
            raise EmptySplit(
                f"{folder} has no {split} {self.holds or 'pictures'}{' that can be read' if self.skipped else ''}."
            )

    def _entries(self) -> Iterator[tuple[Entry, str]]:
        """Every line with its split."""
        self.holds = ""
        first: dict[Path, str] = {}  # the first caption of each file
        for where, line in caption_lines(self.folder, self.skip_bad or self.as_before is not None):
            try:
                if isinstance(line, ValueError):
                    raise line
                if not self.holds:
                    self.holds = "sounds" if any(name in line for name in SOUND_COLUMNS) else "pictures"
                found = self._entry(where, line, first)
            except ValueError as error:
                self.left_out_row(error)
            else:
                yield found

    def _entry(self, where: str, line: dict, first: dict[Path, str]) -> tuple[Entry, str]:
        sounds = self.holds == "sounds"
        sound = column(line, SOUND_COLUMNS, where) if sounds else None
        columns = IMAGE_BESIDE_SOUND_COLUMNS if sounds else IMAGE_COLUMNS
        image = column(line, columns, where) if not sounds or any(name in line for name in columns) else None
        caption = column(line, CAPTION_COLUMNS, where)
        files = [inside(self.folder, name, where) for name in (sound, image) if name]
        split = str(line.get("split") or split_of(first.setdefault(files[0], caption))).strip()
        if split not in SPLITS[:3]:
            raise ValueError(f"{where}: split is train, val or test, not {split!r:.60}.")
        speaker = line.get("speaker")
        return Entry(caption, image, sound, checked(str(speaker), where, "speaker") if speaker else ""), split

    def _look_at(self, image: str | None, sound: str | None) -> None:
        """Raise what can be known without reading all of a file, and note what its header says."""
        try:
            for name, kind in ((sound, "sound"), (image, "picture")):
                if name and not (self.folder / name).is_file():
                    raise FileNotFoundError(f"There is no {kind} {self.folder / name}, though the captions name it.")
            if sound and (note := probe_sound(self.folder / sound)):
                self.note([note])
        except (OSError, ValueError) as error:
            raise with_advice(error) from error

    def _read(self, image_name: str | None, sound: str | None) -> tuple[Any, Any, tuple[str, ...]]:
        """A picture, a sound, and what is to be known of it."""
        notes: list[str] = []
        cut = None if sound else notes  # of a picture beside a sound nothing is told
        image = read_image(self.folder / image_name, self.size, notes=cut) if image_name else None
        waveform = read_sound(self.folder / sound, seconds=self.seconds, notes=notes) if sound else None
        self.note(notes)
        return image, waveform, tuple(notes)

    def parts(self) -> list[Part]:
        found = {}
        for entry in self.samples:
            found |= {entry.image: (entry.image, None), entry.sound: (None, entry.sound)}
        return [Part(self.folder / name, partial(self._read, *files)) for name, files in found.items() if name]

    def caption(self, index: int) -> str:
        return self.samples[index].caption

    def sample(self, index: int) -> ImageText | SoundSample:
        caption, image_name, sound, speaker = self.samples[index]
        image, waveform, notes = self._read(image_name, sound)
        if sound:
            return SoundSample(waveform, caption, sound, speaker, image, notes)
        return ImageText(image, caption, image_name)
