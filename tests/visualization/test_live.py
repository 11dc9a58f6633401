"""The live curve: quiet outside a notebook, one display that is redrawn inside."""

import math

import IPython
import IPython.display
import matplotlib
import pytest

from mmlearn.visualization import LiveCurve

matplotlib.use("agg")


class Handle:
    def __init__(self, figure):
        self.figures = [figure]

    def update(self, figure):
        self.figures.append(figure)


@pytest.fixture
def notebook(monkeypatch):
    """IPython as in a notebook; the displays that were opened."""
    handles = []

    def display(figure, display_id):
        assert display_id is True
        handles.append(Handle(figure))
        return handles[-1]

    monkeypatch.setattr(IPython, "get_ipython", object)
    monkeypatch.setattr(IPython.display, "display", display)
    return handles


def run(curve, steps):
    for step in steps:
        curve(step, {"step": step, "loss": math.exp(-step)})


def test_outside_a_notebook_it_keeps_the_history_and_draws_nothing(capsys):
    curve = LiveCurve(every=1)
    run(curve, range(1, 6))
    assert [item["step"] for item in curve.history] == [1, 2, 3, 4, 5]
    assert curve.handle is None
    assert capsys.readouterr().out == ""


def test_in_a_notebook_one_display_is_redrawn(notebook):
    curve = LiveCurve(every=4, chance=3.5)
    run(curve, range(1, 4))
    assert notebook == []
    run(curve, range(4, 14))
    (handle,) = notebook
    assert len(handle.figures) == 3  # at 4, 8 and 12
    for figure, steps in zip(handle.figures, (4, 8, 12)):
        lines = figure.axes[0].get_lines()
        assert lines[1].get_xdata().tolist() == list(range(1, steps + 1))
        assert set(lines[2].get_ydata()) == {3.5}
    curve.draw()
    assert handle.figures[-1].axes[0].get_lines()[1].get_xdata().tolist() == list(range(1, 14))
