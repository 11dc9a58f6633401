"""``captions.csv`` and ``captions.jsonl``: what is said of the files of a folder, line by line."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

from mmlearn.data.hashing import stream

SPLITS = ("train", "val", "test", "all")


def has_captions(folder: str | Path) -> bool:
    """Whether a captions file lies in this folder."""
    return any((Path(folder) / name).is_file() for name in READERS)


def caption_lines(folder: Path) -> Iterator[tuple[str, dict]]:
    """Each line of a folder's captions file, by the names of its columns, and before it where it stands."""
    for name, read in READERS.items():
        if (folder / name).is_file():
            yield from read(folder / name)
            return
    raise FileNotFoundError(
        f"{folder} has neither captions.csv nor captions.jsonl. Write one with image, caption (or sound, caption); "
        "or give a folder with annotations/captions_*.json of COCO, or with tar files of WebDataset."
    )


def _csv(path: Path) -> Iterator[tuple[str, dict]]:
    table = csv.DictReader(io.StringIO(_text(path), newline=""), skipinitialspace=True, strict=True)
    try:
        for line in table:
            where = f"{path}, line {table.line_num}"
            if None in line:
                raise ValueError(f"{where}: more columns than the header; quote captions with commas.")
            yield where, {name.strip().lower(): value for name, value in line.items()}
    except csv.Error as error:
        raise ValueError(f"{path}, line {table.line_num + 1}: {error}; is there a quote too many?") from error


def _jsonl(path: Path) -> Iterator[tuple[str, dict]]:
    for number, text in enumerate(_text(path).split("\n"), 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}.") from error
        if not isinstance(line, dict):
            raise ValueError(f"{path}, line {number}: expected an object with image or sound, and caption.")
        yield f"{path}, line {number}", line


READERS = {"captions.csv": _csv, "captions.jsonl": _jsonl}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # spreadsheets like to put a byte-order mark first
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8.") from error


def column(line: dict, names: tuple[str, ...], where: str) -> str:
    """What a line says under one of these ``names``. ``ValueError`` where that is missing, empty or no text."""
    name = next((name for name in names if name in line), None)
    if name is None:
        raise ValueError(f"{where}: no {names[0]!r}; it has {', '.join(map(str, line)) or 'nothing'}.")
    value = "" if line[name] is None else line[name]
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
