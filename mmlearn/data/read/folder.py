"""A folder of the user's own: pictures, and ``captions.csv`` or ``captions.jsonl`` that say what they show."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

from torch.utils.data import Dataset

from mmlearn.data.hashing import stream
from mmlearn.data.read.pictures import ImageText, read_picture
from mmlearn.names import choices

SPLITS = ("train", "val", "test", "all")
IMAGE_COLUMNS = ("image", "file_name", "filename", "file", "path")
CAPTION_COLUMNS = ("caption", "text", "description")


class Folder(Dataset):
    """Pictures with captions from a folder.

    ``captions.csv`` has a header with ``image`` (a path inside the folder) and ``caption``; ``captions.jsonl`` has one
    such object a line. A picture may have several lines. Where there is a column ``split`` with train, val or test, it
    decides; otherwise 80, 10 and 10 % go to each, by the first caption of a picture: no picture stands in two splits,
    and no caption does where each picture has one.

    With ``skip_bad``, pictures that cannot be read are left out, and ``skipped`` lists why; without it, reading one
    raises ``ValueError`` naming it. ``FileNotFoundError`` and ``ValueError`` name the file and line of what is wrong.
    """

    def __init__(self, folder: str | Path, split: str = "train", *, size: int = 64, skip_bad: bool = False):
        self.folder, self.size = Path(folder), size
        if split not in SPLITS:
            raise ValueError(f"A folder has no split {split!r}; {choices(split, SPLITS)}.")
        if not self.folder.is_dir():
            raise FileNotFoundError(f"There is no folder {self.folder}.")
        pairs = [(image, caption) for image, caption, where in _pairs(self.folder) if split in (where, "all")]
        self.skipped: list[str] = []
        if skip_bad:
            good = {image: self._readable(image) for image in dict.fromkeys(image for image, _ in pairs)}
            pairs = [pair for pair in pairs if good[pair[0]]]
        elif missing := next((image for image, _ in pairs if not (self.folder / image).is_file()), None):
            raise FileNotFoundError(f"There is no picture {self.folder / missing}, though the captions name it.")
        if not pairs:
            raise ValueError(f"{self.folder} has no {split} pictures{' that can be read' if self.skipped else ''}.")
        self.pairs = pairs

    def _readable(self, image: str) -> bool:
        try:
            read_picture(self.folder / image, self.size)
        except (OSError, ValueError) as error:
            self.skipped.append(str(error))
            return False
        return True

    def __len__(self) -> int:
        return len(self.pairs)

    def caption(self, index: int) -> str:
        """A caption without its picture."""
        return self.pairs[index][1]

    def __getitem__(self, index: int) -> ImageText:
        image, caption = self.pairs[index]
        return ImageText(read_picture(self.folder / image, self.size), caption, image)


def _pairs(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Image, caption and split of every line."""
    lines, path = caption_lines(folder)
    root = folder.resolve()
    first: dict[Path, str] = {}  # the first caption of each picture
    for number, line in lines:
        where = f"{path}, line {number}"
        image, caption = (column(line, names, where) for names in (IMAGE_COLUMNS, CAPTION_COLUMNS))
        try:
            file = (folder / image).resolve()
        except (OSError, ValueError) as error:
            raise ValueError(f"{where}: {image[:60]!r} cannot be a path ({error}).") from error
        if not file.is_relative_to(root):
            raise ValueError(f"{where}: {image!r} is outside the folder.")
        split = str(line.get("split") or split_of(first.setdefault(file, caption))).strip()
        if split not in SPLITS[:3]:
            raise ValueError(f"{where}: split is train, val or test, not {split!r}.")
        yield image, caption, split


CAPTIONS = ("captions.csv", "captions.jsonl")


def has_captions(folder: str | Path) -> bool:
    """Whether a captions file lies in this folder."""
    return any((Path(folder) / name).is_file() for name in CAPTIONS)


def caption_lines(folder: Path) -> tuple[Iterator[tuple[int, dict]], Path]:
    """The numbered lines of a folder's captions file, and that file. ``FileNotFoundError`` where there is none."""
    csv_path, jsonl_path = (folder / name for name in CAPTIONS)
    if csv_path.is_file():
        return _csv(csv_path), csv_path
    if jsonl_path.is_file():
        return _jsonl(jsonl_path), jsonl_path
    raise FileNotFoundError(
        f"{folder} has neither captions.csv nor captions.jsonl. Write one with image, caption (or sound, caption); "
        "or give a folder with annotations/captions_*.json of COCO, or with tar files of WebDataset."
    )


def _csv(path: Path) -> Iterator[tuple[int, dict]]:
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), skipinitialspace=True, strict=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num + 1}: {error}; is there a quote too many?") from error
        if None in row:
            raise ValueError(
                f"{path}, line {reader.line_num}: more columns than the header; quote captions with commas."
            )
        yield reader.line_num, {name.strip().lower(): value for name, value in row.items()}


def _jsonl(path: Path) -> Iterator[tuple[int, dict]]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: expected an object with image or sound, and caption.")
        yield number, row


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # spreadsheets like to put a byte-order mark first
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8.") from error


def column(row: dict, names: tuple[str, ...], where: str) -> str:
    """What a line says under one of these ``names``. ``ValueError`` where that is missing, empty or no text."""
    name = next((name for name in names if name in row), None)
    if name is None:
        raise ValueError(f"{where}: no {names[0]!r}; it has {', '.join(map(str, row)) or 'nothing'}.")
    value = "" if row[name] is None else row[name]
    if not isinstance(value, str):
        raise ValueError(f"{where}: {name} is a text, not {value!r:.60}.")
    if not value.strip():
        raise ValueError(f"{where}: {name} is empty.")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{where}: {name} holds half a character (a lone surrogate, as in \\ud800).")
    return value.strip()


def split_of(caption: str) -> str:
    """The split of a caption where the file names none: a tenth each is val and test, by a hash."""
    tenth = int(stream("folder", caption.lower())) % 10
    return {0: "val", 1: "test"}.get(tenth, "train")
