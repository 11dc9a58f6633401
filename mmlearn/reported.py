"""Names of what a lesson reports: ``colour right`` of what it trains, ``colour right, zoo`` of packaged weights."""

from collections.abc import Iterable, Mapping
from typing import Any

HERE, OTHERS = "here", ("zoo", "untrained")  # trained in the notebook; whose columns are in a result's name


def result_name(row: str, column: str) -> str:
    """The name of a row's result in this column."""
    return row if column == HERE else f"{row}, {column}"


def by_row(results: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """The results of each row by their columns, in the order in which rows come first."""
    rows: dict[str, dict[str, Mapping[str, Any]]] = {}
    for result in results:
        row, _, column = result["name"].rpartition(", ")
        if column not in OTHERS:
            row, column = result["name"], HERE
        rows.setdefault(row, {})[column] = result
    return rows
