"""Markdown of what is not ours."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; what a cell holds is text, unless it is a link or code that we wrote ourselves."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def text(value: str) -> str:
    """A string as Markdown that shows it unchanged."""
    return "".join(f"\\{character}" if character in r"\`*_{}[]<>#$~" else character for character in value)
