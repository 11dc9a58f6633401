"""Figures of the lesson on fusion: which way up a map is, and which answers are green."""

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_rgb

from mmlearn.visualization.figures import RIGHT, WRONG
from mmlearn.visualization.lesson_fusion import decision_maps, square_board


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_the_first_row_of_a_map_is_the_lowest_value():
    chances = torch.tensor([[0.0, 0.1], [0.9, 1.0]])  # rows: the second number, from −1
    points = torch.tensor([[0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]])
    figure = decision_maps({"a": chances, "b": chances}, points, torch.tensor([True, False, False]), reach=1,
                           names=("one", "other"), title="t")  # fmt: skip
    axis = figure.axes[0]
    assert torch.equal(torch.tensor(axis.images[0].get_array()), chances)
    assert axis.images[0].origin == "lower"
    yes, no = axis.collections
    assert yes.get_offsets().tolist() == [[0.5, 0.5]]
    assert no.get_offsets().tolist() == [[-0.5, -0.5], [0.5, -0.5]]
    for points, chance, hue in ((yes, 1.0, 0), (no, 0.0, 2)):  # red and blue, as the map has them
        assert all(
            max(range(3), key=colour.__getitem__) == hue
            for colour in (points.get_facecolors()[0], axis.images[0].cmap(chance))
        )
    assert axis.images[0].get_clim() == (0, 1)
    assert [axis.get_title(), axis.get_xlabel(), axis.get_ylabel()] == ["a", "one", "other"]


def test_a_square_is_green_where_yes_is_said_of_true_pairs_and_no_of_false_ones():
    square = torch.tensor([[2.0, 0.5], [-1.0, -3.0]])  # picture by name: only the first and the third are right
    pair = (torch.zeros(3, 8, 8), torch.ones(3, 8, 8))
    figure = square_board([pair], [("cat", "red car")], {"sum": square[None], "other": -square[None]})
    axis, other = figure.axes[:2]
    told = {text.get_position(): (text.get_text(), text.get_color()) for text in axis.texts}
    assert told[0.5, 0.5] == ("yes\n+2.00", RIGHT)
    assert told[0.5, 1.5] == ("yes\n+0.50", WRONG)  # the first picture, the second name
    assert told[1.5, 0.5] == ("no\n-1.00", RIGHT)
    assert told[1.5, 1.5] == ("no\n-3.00", WRONG)
    assert [patch.get_facecolor()[:3] for patch in axis.patches] == list(map(to_rgb, (RIGHT, RIGHT, WRONG, WRONG)))
    assert axis.get_xlabel() == "true pairs -1.00, false pairs -0.50"
    assert other.get_title(loc="left") == "other"
    figure.canvas.draw()
    seen = sorted(axis.child_axes, key=lambda each: each.get_position().x0)  # above their columns
    assert [each.images[0].get_array().mean() for each in seen] == [0, 1]
    assert [text.get_text() for text in axis.texts if text.get_ha() == "right"] == ["cat", "red\ncar"]
