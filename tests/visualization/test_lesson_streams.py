"""Figures of the lesson on two streams: curves of tasks, and attention in both directions."""

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_hex

from mmlearn.visualization.captions import INKS
from mmlearn.visualization.lesson_streams import both_ways, curves_of_tasks


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_curves_begin_at_step_0_and_floors_are_drawn_for_each_task():
    figure = curves_of_tasks(
        {"a": {"x": [0.1, 0.5], "y": [0.2, 0.3]}, "b": {"x": [0.1, 1.0]}}, every=25, floors={"f": 0.3}
    )
    first, second = figure.axes
    assert [line.get_label() for line in first.get_lines()] == ["x", "y", "f"]
    assert first.get_lines()[0].get_xdata().tolist() == [0, 25]
    assert second.get_lines()[0].get_ydata().tolist() == [0.1, 1.0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["x", "y", "f"]


def test_regions_keep_their_colours_and_bars_have_the_ink_of_their_box():
    image = torch.zeros(3, 40, 40)
    image[0] = 1  # red
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]])
    looks = {0: torch.tensor([0.9, 0.1])}, {1: torch.tensor([0.2, 0.8, 0.0])}
    figure = both_ways(
        image, boxes, ["fish", "key"], ["a", "red", "key"], *looks, {0: ("red", True), 1: ("blue", False)}
    )
    picture, glow, bars = figure.axes
    pixels = glow.images[0].get_array()
    assert pixels[5, 5, 1] < 0.1  # as it was
    assert pixels[5, 35, 1] > 0.7  # pale
    assert [text.get_text() for text in glow.texts] == ["90%", "10%"]
    assert glow.get_title() == "hidden word of fish: red"
    assert [bar.get_height() for bar in bars.patches] == pytest.approx([0.2, 0.8, 0.0])
    assert to_hex(bars.patches[0].get_facecolor()) == to_hex(picture.patches[-1].get_edgecolor()) == INKS[0]
    assert bars.get_legend().get_texts()[0].get_text() == "grey key: blue (wrong)"
