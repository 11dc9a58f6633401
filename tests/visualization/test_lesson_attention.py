"""Figures of the lesson on attention: their lines, their floors, and how blue a word is."""

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_rgba

from mmlearn.visualization.lesson_attention import INK, share_lines, words_attended


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_lines_stand_where_they_were_measured_and_floors_are_named():
    figure = share_lines(
        {"a": [0.1, 0.5, 1.0], "b": [0.2, 0.2, 0.2]}, [1, 4, 16], across="facts", label="right",
        floors={"chance": 1 / 9},
    )  # fmt: skip
    (axis,) = figure.axes
    first, second, floor = axis.get_lines()
    assert first.get_xdata().tolist() == [1, 4, 16]
    assert first.get_ydata().tolist() == [0.1, 0.5, 1.0]
    assert second.get_marker() != first.get_marker()
    assert set(floor.get_ydata()) == {1 / 9}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "chance"]
    assert axis.get_xscale() == "log"
    assert axis.get_xlabel() == "facts"
    with pytest.raises(ValueError, match="'b' has 2 values for 3 places"):
        share_lines({"b": [0.1, 0.2]}, [1, 2, 3], across="", label="")


def test_a_floor_may_differ_from_number_to_number():
    figure = share_lines({"a": [1.0, 0.9]}, [1, 2], across="facts", label="right", floors={"guess": [1.0, 0.5]})
    _, floor = figure.axes[0].get_lines()
    assert (floor.get_xdata().tolist(), floor.get_ydata().tolist()) == ([1, 2], [1.0, 0.5])
    assert floor.get_linestyle() == "--"


def test_a_word_is_as_blue_as_its_weight():
    words = [f"w{k}" for k in range(14)]
    weights = torch.zeros(2, 14)
    weights[0, 3], weights[0, 13], weights[1, 0] = 0.8, 0.2, 1.0
    figure = words_attended(words, weights, ["first?", "second?"], marked=[3, 0], title="all")
    one, other = figure.axes
    glows = [patch for patch in one.patches if patch.get_fill()]
    assert glows[3].get_facecolor() == to_rgba(INK, 0.75 * weights[0, 3].item())
    assert glows[13].get_xy() == pytest.approx((1.03, 1.06))  # the second line begins with the thirteenth word
    assert [patch.get_xy() for patch in one.patches if not patch.get_fill()] == [glows[3].get_xy()]
    assert [text.get_text() for text in one.texts][3] == "w3\n80%"
    assert [text.get_text() for text in one.texts][4] == "w4\n"
    assert [text.get_text() for text in one.texts][13] == "w13\n20%"
    assert [patch.get_xy() for patch in other.patches if not patch.get_fill()] == [other.patches[0].get_xy()]
    assert (one.get_title(loc="left"), other.get_title(loc="left")) == ("first?", "second?")
    with pytest.raises(ValueError, match="2 queries and 3 words"):
        words_attended(words[:3], weights, ["a", "b"], marked=[0, 0])
