"""What commands print: progress on stderr, tables or JSON on stdout."""

import json
import sys
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]


LONGEST = 1000  # letters of a line: names and captions come from files, and may be of any length


def plain(text: str) -> str:
    """The text in one line, as a terminal may show it: control characters are spelled out, and what is long is cut.

    Texts come from files of others, and an escape character in a name could change what the terminal does.
    """
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"


def say(text: str) -> None:
    """A line of progress."""
    print(plain(text), file=sys.stderr, flush=True)


def show(rows: list[dict], as_json: bool) -> None:
    """A table on stdout, or the rows as JSON."""
    if as_json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
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
    return f"{value:.4g}" if isinstance(value, float) else plain(str(value))
