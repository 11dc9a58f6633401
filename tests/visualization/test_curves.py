"""Lines over conditions, read from their artists."""

import matplotlib
import matplotlib.pyplot as plt
import pytest

matplotlib.use("agg")

from mmlearn.visualization import curves, line_panels


def test_lines_carry_their_numbers_and_chance_is_in_every_panel():
    panels = {"loud": {"both": [0.9, 0.8, 0.5], "one": [0.6, 0.4, 0.2]}, "soft": {"both": [0.7, 0.6, 0.6]}}
    figure = curves(
        panels, ["clean", "0 dB", "-10 dB"], label="right", across="noise", chance=0.1, ceilings={"one": 0.75}
    )
    figure.canvas.draw()
    assert plt.get_fignums() == []
    loud, soft = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["loud", "soft"]
    texts = [text.get_text() for text in loud.get_legend().get_texts()]
    assert texts == ["both (0.50)", "one (0.20)", "chance (0.10)"]
    heights = [list(line.get_ydata()) for line in loud.lines]
    assert heights == [[0.9, 0.8, 0.5], [0.6, 0.4, 0.2], [0.75, 0.75], [0.1, 0.1]]
    assert loud.lines[2].get_color() == loud.lines[1].get_color()  # a ceiling has the colour of its line
    assert [list(line.get_ydata()) for line in soft.lines] == [[0.7, 0.6, 0.6], [0.1, 0.1]]
    assert [tick.get_text() for tick in soft.get_xticklabels()] == ["clean", "0 dB", "-10 dB"]
    assert loud.get_ylabel() == "right"
    assert loud.get_xlabel() == "noise"


@pytest.mark.parametrize("width", [1, 2])
def test_panels_stand_side_by_side(width):
    figure = curves({str(i): {"a": [0.1, 0.2]} for i in range(width)}, ["x", "y"], label="share")
    assert len(figure.axes) == width
    assert [line.get_linestyle() for line in figure.axes[0].lines] == ["-"]


def test_lines_over_numbers_of_their_own():
    panels = {"one": {"a": ([0, 2, 9], [0.1, 0.2, 0.3]), "b": ([0, 4], [0.5, 0.6])}, "two": {"b": ([1, 2], [3.0, 2.0])}}
    levels = {"one": {"chance": 0.125, "bag": 0.4, "best": 0.9}}
    figure = line_panels(panels, label="right", across="work", levels=levels, marker="o")
    figure.canvas.draw()
    assert plt.get_fignums() == []
    one, two = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["one", "two"]
    texts = [text.get_text() for text in one.get_legend().get_texts()]
    assert texts == ["a (0.30)", "b (0.60)", "chance (0.12)", "bag (0.40)", "best (0.90)"]
    assert [list(line.get_xdata()) for line in one.lines[:2]] == [[0, 2, 9], [0, 4]]
    assert [list(line.get_ydata()) for line in one.lines] == [
        [0.1, 0.2, 0.3],
        [0.5, 0.6],
        *([x] * 2 for x in (0.125, 0.4, 0.9)),
    ]
    assert len({line.get_linestyle() for line in one.lines[2:]}) == 3
    assert one.lines[1].get_color() == two.lines[0].get_color() != one.lines[0].get_color()
    assert two.lines[0].get_marker() == "o"
    assert len(two.lines) == 1
    assert one.get_ylim()[0] == two.get_ylim()[0] == 0
    assert (one.get_ylabel(), one.get_xlabel(), two.get_xlabel()) == ("right", "work", "work")
