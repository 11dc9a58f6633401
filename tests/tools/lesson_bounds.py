"""Under nbval at the scale ``laptop``, what a lesson reports is compared with ``tests/chapters/NN.toml``.

``pytest -p lesson_bounds --nbval-lax notebooks``. The cell that calls ``lesson.report`` writes ``metrics.json``; behind
it this plugin reads that file, and fails the cell where a number is out of its bounds, is NaN, or was not reported.
"""

import json
import tomllib
from pathlib import Path

import pytest

from mmlearn.reported import by_row

BOUNDS = Path(__file__).parents[1] / "chapters"


class OutOfBounds(AssertionError):
    """What a lesson reports is not what it should be."""


def out_of_bounds(results, bounds):
    """A line for each number that is missing or out of its bounds."""
    reported, found = by_row(results), []
    for column, rows in bounds.items():
        for name, bound in rows.items():
            low, high = bound.get("at_least", -float("inf")), bound.get("at_most", float("inf"))
            if column not in reported.get(name, {}):
                found.append(f"{column}: {name!r} was not reported")
                continue
            value = reported[name][column]["obtained"]
            if not low <= value <= high:  # never true of NaN
                found.append(f"{column}: {name!r} is {value:.3f}, expected {low:g} to {high:g}")
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    result = yield
    cell = getattr(item, "cell", None)
    if cell is None or "lesson.report(" not in cell.source:
        return result
    number, folder = item.path.name.partition("_")[0], item.path.parent / "runs" / item.path.stem
    record = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    if record["scale"] != "laptop":
        return result
    bounds = tomllib.loads((BOUNDS / f"{number}.toml").read_text(encoding="utf-8"))
    if found := out_of_bounds(record["results"], bounds):
        raise OutOfBounds("; ".join(found))
    return result
