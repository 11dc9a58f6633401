"""Markdown of what is not ours."""

from collections.abc import Iterable, Sequence

from mmlearn.escaping import in_markdown as text

__all__ = ["table", "text"]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; what a cell holds is text, unless it is a link or code that we wrote ourselves."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
