"""Measured things, read from their artists."""

import matplotlib
import matplotlib.pyplot as plt
import pytest

matplotlib.use("agg")

from mmlearn.visualization import iso_flop_curves, planned_and_measured, roofline, spread_bars


@pytest.fixture(autouse=True)
def nothing_stays_open():
    yield
    assert plt.get_fignums() == []


def points(axis):
    return [tuple(line.get_xdata()) for line in axis.lines]


def test_a_bar_is_the_median_and_each_round_a_dot():
    figure = spread_bars(
        {"one": {"a": [3.0, 1.0, 2.0], "b": [4.0]}, "two": {"a": [5.0, 7.0]}}, label="speed", notes={"two": "(x)"}
    )
    (axis,) = figure.axes
    assert [bar.get_width() for bar in axis.patches] == [2.0, 4.0, 6.0]
    assert points(axis) == [(3.0, 1.0, 2.0), (5.0, 7.0)]
    assert [text.get_text() for text in axis.texts] == ["2  ", "4  ", "6  (x)"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["a", "b"]
    assert "a dot a round" in axis.get_xlabel()
    (axis,) = spread_bars({"one": {"": [1234.5]}}, label="speed").axes
    assert (axis.get_xlabel(), axis.texts[0].get_text(), points(axis)) == ("speed", "1,234  ", [])


def test_the_roof_is_where_memory_and_arithmetic_meet():
    figure = roofline({"norm": (1.0, [1e9, 3e9, 2e9])}, peak=100e9, bandwidth=10e9)
    (axis,) = figure.axes
    roof, rounds, median = axis.lines
    (low, ridge, high), heights = roof.get_xdata(), list(roof.get_ydata())
    assert ridge == 10
    assert heights == pytest.approx([low * 10, 100, 100])
    assert low < 1 < ridge < high
    assert list(rounds.get_ydata()) == [1, 3, 2]
    assert (median.get_xdata()[0], median.get_ydata()[0]) == (1.0, 2.0)


def test_points_have_the_colour_of_their_plan():
    plans = {"whole": ([1, 10], [2, 20]), "parts": ([1, 10], [1, 2])}
    figure = planned_and_measured(plans, {"parts": ([4], [1.5])}, across="batch", label="GiB", levels={"a card": 16.0})
    (axis,) = figure.axes
    whole, parts, measured, level = axis.lines
    assert measured.get_color() == parts.get_color() != whole.get_color()
    assert list(measured.get_ydata()) == [1.5]
    assert set(level.get_ydata()) == {16.0}
    assert [text.get_text() for text in axis.texts] == ["a card"]


def test_each_budget_has_its_curve_its_runs_and_its_best_size():
    losses = {"1e9": {10: [3.0, 3.1], 100: [2.0], 1000: [2.5]}, "3e9": {10: [2.9]}}
    laws = {"1e9": ([10, 100, 1000], [3.0, 2.0, 2.5]), "3e9": ([10, 100, 1000], [3.0, 2.0, 1.5])}
    (axis,) = iso_flop_curves(losses, laws, dashed="3e9").axes
    curves = [line for line in axis.lines if len(line.get_xdata()) == 3]
    assert [line.get_linestyle() for line in curves] == ["-", "--"]
    best = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "v"]
    assert best == [100]  # the other curve falls to its end
    large = [
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in axis.lines
        if line.get_markersize() == 6 and line.get_marker() == "o"
    ]
    assert large == [(10, 3.0), (100, 2.0), (1000, 2.5), (10, 2.9)]
    assert [list(line.get_ydata()) for line in axis.lines if line.get_markersize() == 3 and len(line.get_ydata())] == [
        [3.1]
    ]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["1e9", "3e9 (forecast)"]
