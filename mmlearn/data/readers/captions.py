"""``captions.csv`` and ``captions.jsonl``: what is said of the files of a folder, line by line.

Whatever file a caption comes from, :func:`checked` looks at it, and :func:`parsed` reads what is JSON.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmlearn.data.hashing import stream

SPLITS = ("train", "val", "test", "all")
_HALF = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")  # all but ends of lines and tabs


def has_captions(folder: str | Path) -> bool:
    """Whether a captions file lies in this folder."""
    return any((Path(folder) / name).is_file() for name in READERS)


def caption_lines(folder: Path, skip_bad: bool = False) -> Iterator[tuple[str, dict | ValueError]]:
    """Each line of a folder's captions file, by the names of its columns, and before it where it stands.

    In the place of a line that cannot be read there is what is wrong with it. Raises ``FileNotFoundError`` without a
    file, and ``ValueError`` for one that is not UTF-8, unless bad lines are to be skipped, or whose header is wrong.
    """
    path = next((folder / name for name in READERS if (folder / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"{folder} has neither captions.csv nor captions.jsonl. Write one with image, caption (or sound, caption); "
            "or give a folder with annotations/captions_*.json of COCO, or with tar files of WebDataset."
        )
    try:  # spreadsheets like to put a byte-order mark first
        content = path.read_text(encoding="utf-8-sig", errors="surrogateescape" if skip_bad else "strict")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8.") from error
    if not content.strip():
        raise ValueError(f"{path} is empty: write a header and a line for each picture or sound.")
    yield from READERS[path.name](path, content)


def _csv(path: Path, content: str) -> Iterator[tuple[str, dict | ValueError]]:
    table = csv.DictReader(io.StringIO(content, newline=""), skipinitialspace=True, strict=True)
    try:
        header = [name.strip().lower() for name in table.fieldnames or []]
    except csv.Error as error:
        raise ValueError(f"{path}, line 1: {error}; is there a quote too many?") from error
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise ValueError(f"{path}: two columns are called {twice[0]!r:.60}; rename one.")
    while True:
        where = f"{path}, line {table.reader.line_num + 1}"
        try:
            line = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            yield where, ValueError(f"{where}: {error}; is there a quote too many?")
            continue
        where = f"{path}, line {table.line_num}"
        if None in line:
            yield where, ValueError(f"{where}: more columns than the header; quote captions with commas.")
        elif any(_HALF.search(value or "") for value in line.values()):
            yield where, ValueError(f"{where} is not UTF-8.")
        else:
            yield where, {name.strip().lower(): value for name, value in line.items()}


def _jsonl(path: Path, content: str) -> Iterator[tuple[str, dict | ValueError]]:
    for number, text in enumerate(content.split("\n"), 1):
        where = f"{path}, line {number}"
        if text.strip():
            try:
                yield where, parsed(text, where)
            except ValueError as error:
                yield where, error


READERS = {"captions.csv": _csv, "captions.jsonl": _jsonl}


def parsed(text: str, where: str) -> dict[str, Any]:
    """An object of JSON. ``ValueError`` where it is none, and where a name stands in it twice."""
    if _HALF.search(text):
        raise ValueError(f"{where} is not UTF-8.")
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: {str(error) or type(error).__name__}.") from error
    if not isinstance(value, dict):
        raise ValueError(f'{where}: expected an object of JSON, such as {{"caption": …}}, got {value!r:.60}.')
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    (name, count), *_ = Counter(name for name, _ in pairs).most_common(1) or [("", 0)]
    if count > 1:
        raise ValueError(f"{name!r:.60} stands twice in one object")
    return dict(pairs)


def column(line: dict, names: tuple[str, ...], where: str) -> str:
    """What a line says under one of these ``names``. ``ValueError`` where it says nothing, or what is no caption."""
    name = next((name for name in names if name in line), None)
    if name is None:
        raise ValueError(f"{where}: no {names[0]!r}; it has {', '.join(map(str, line)) or 'nothing'}.")
    return checked(line[name], where, name)


def checked(value: Any, where: str, name: str = "caption") -> str:
    """A text without space around it. ``ValueError`` for what is none, is empty, or cannot be shown or written."""
    value = "" if value is None else value
    if not isinstance(value, str):
        raise ValueError(f"{where}: {name} is a text, not {value!r:.60}.")
    if not value.strip():
        raise ValueError(f"{where}: {name} is empty.")
    if _HALF.search(value):
        raise ValueError(f"{where}: {name} holds half a character (a lone surrogate, as in \\ud800).")
    if control := _CONTROL.search(value):
        raise ValueError(f"{where}: {name} holds the control character {control[0]!a}.")
    return value.strip()


def split_of(caption: str) -> str:
    """The split of a caption where the file names none: a tenth each is val and test, by a hash."""
    tenth = int(stream("folder", caption.lower())) % 10
    return {0: "val", 1: "test"}.get(tenth, "train")
