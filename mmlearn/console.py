"""What commands print: progress on stderr, tables or JSON on stdout."""

import sys
from typing import Annotated

import typer

from mmlearn.escaping import in_json, plain

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]


def one_line(error: object) -> str:
    """What went wrong, in one line."""
    text = str(error)
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
