"""What commands print: progress on stderr, tables or JSON on stdout."""

import codecs
import json
import os
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from mmlearn.escaping import escaped, in_json, plain
from mmlearn.files import ProgressStream

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]


def one_line(error: object) -> str:
    """What went wrong, in one line."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:  # not "[Errno 28] …"
        text = f"{error.filename2 or error.filename}: {error.strerror.lower()}"
    if "Original Traceback" in text:  # from a process that prepares batches; its last line is the error itself
        text = text.strip().splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())


def say(text: str) -> None:
    """A line of progress."""
    print(plain(text), file=sys.stderr, flush=True)


def show(rows: list[dict], as_json: bool) -> None:
    """A table on stdout, or the rows as JSON."""
    if as_json:
        print(in_json(rows))
        return
    table = (
        [[plain(name) for name in rows[0]], *[[as_cell(value) for value in row.values()] for row in rows]]
        if rows
        else []
    )
    widths = [max(map(len, column)) for column in zip(*table)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def as_cell(value: object) -> str:
    """A value as people read it: numbers to four digits, a dash for what there is not."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else plain(value)


def prepare_streams() -> None:
    """Streams that the shell closed, that fail, and whose locale lacks letters, stop no command."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as with >&-
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    codecs.register_error("escaped", escaped)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="escaped")
    sys.stderr = ProgressStream(sys.stderr)  # type: ignore[assignment]


def tell_launcher(text: str) -> None:
    """Tell ``torchrun`` why this process fails: its report, which nothing here can keep back, then ends with that."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):  # one for each process, and read when it has ended
        with suppress(OSError):
            Path(path).write_text(json.dumps({"message": text, "timestamp": int(time.time())}), encoding="utf-8")


def check_place(words: list[str]) -> None:
    """Refuse a working directory that was deleted, where PyTorch would abort, and an output without a name."""
    if "--output=" in words or ("--output", "") in pairwise(words):  # such as of a variable that a script lacks
        raise ValueError("--output is empty: give it a name.")
    if "" in words and words[0] in ("start", "convert"):  # they write to a folder that is no option
        raise ValueError(f"A name is empty: mmlearn {words[0]} needs all of them.")
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise FileNotFoundError("The working directory was deleted: go to another one (cd).") from error
