"""Notebooks under nbval at another scale than ``laptop``: ``pytest -p scales --scale smoke --at-laptop 00,07b``.

As papermill does, it changes the parameters cell alone. ``--at-laptop`` names notebooks that stay at ``laptop``, by
number; they run first, because they take longest. Without ``--scale`` all stay as they are.
"""

import pytest


def pytest_addoption(parser):
    parser.addoption("--scale", default="laptop", help="the scale at which notebooks run")
    parser.addoption("--at-laptop", default="", help="numbers of notebooks that run at laptop all the same")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    kept = set(filter(None, config.getoption("--at-laptop").split(",")))
    if unknown := kept - {number(item) for item in items}:
        raise pytest.UsageError(f"--at-laptop: there is no notebook {', '.join(sorted(unknown))}.")
    items.sort(key=lambda item: number(item) not in kept)  # the order within a notebook stays
    for item in items:
        if "parameters" in item.cell.metadata.get("tags", []) and number(item) not in kept:
            assert 'SCALE = "laptop"' in item.cell.source, f"{item.path.name} does not say its scale"
            item.cell.source = item.cell.source.replace('"laptop"', f'"{config.getoption("--scale")}"', 1)


def number(item):
    """Of the notebook of a cell: 07b."""
    return item.path.name.partition("_")[0]
