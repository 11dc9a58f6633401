"""Texts with a number at each token, read from their artists."""

import math

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from testing_tools import refused

matplotlib.use("agg")

from mmlearn.visualization import hue_wheels, token_attention, token_heat

ROWS = {"left to right": [("a", 0.5), ("$red", 2.0), ("star", 4.0)], "gaps": [("a", math.nan), ("star", 0.26)]}


def test_each_token_has_its_number_and_colour():
    figure = token_heat(ROWS, label="nats", title="loss")
    figure.canvas.draw()
    assert plt.get_fignums() == []
    axis, bar = figure.axes
    texts = {text.get_position(): text for text in axis.texts}
    said = {position: text.get_text() for position, text in texts.items()}
    assert said == {(0, 0): "a\n0.5", (1, 0): "$red\n2.0", (2, 0): "star\n4.0", (0, 1): "a", (1, 1): "star\n0.3"}
    assert {position: text.get_color() for position, text in texts.items() if text.get_color() == "white"} == {
        (2, 0): "white"
    }
    (image,) = axis.images
    assert image.get_array().shape == (2, 3)
    assert image.get_clim() == (0, 4)
    assert image.get_array().mask.tolist() == [[False] * 3, [True, False, True]]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == list(ROWS)
    assert bar.get_ylabel() == "nats"
    assert axis.get_title() == "loss"


def test_the_deepest_red_may_be_given():
    assert token_heat(ROWS, label="nats", highest=8.0).axes[0].images[0].get_clim() == (0, 8)


def test_frames_stand_around_their_row_and_position():
    axis = token_heat(ROWS, label="nats", framed=[(0, 2), (1, 0)]).axes[0]
    centres = [tuple(round(x) for x in box.get_center()) for box in axis.patches]  # position, then row
    assert centres == [(2, 0), (0, 1)]
    assert all(0.8 < size < 1 for box in axis.patches for size in (box.get_width(), box.get_height()))
    assert not token_heat(ROWS, label="nats").axes[0].patches


@pytest.mark.parametrize("rows", [{}, {"empty": []}])
def test_without_a_token_it_says_so(rows):
    refused("There is no token to draw", token_heat, rows, label="nats")


def test_what_tokens_look_at_with_frames():
    weights = torch.tensor([[1, 0, 0], [0.5, 0.5, 0], [0, 0.25, 0.75]])
    figure = token_attention(weights, ["▸", "(", ")"], framed=[(1, 0), (2, 1)], title="a head")
    figure.canvas.draw()
    axis = figure.axes[0]
    assert [box.get_xy() for box in axis.patches] == [(-0.5, 0.5), (0.5, 1.5)]  # position, then query
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["▸", "(", ")"]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["▸", "(", ")"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("looks at", "token")
    assert axis.images[0].get_array().tolist() == weights.tolist()
    assert axis.images[0].get_clim() == (0, 1)
    assert axis.get_title() == "a head"
    assert plt.get_fignums() == []


def test_hues_on_a_wheel():
    colours = {"red": (1.0, 0.0, 0.0), "rose": (1.0, 0.4, 0.4), "cyan": (0.0, 1.0, 1.0)}
    figure = hue_wheels({"one": [0.1, 0.2, 3.0], "two": [1.0, 1.0, 1.0]}, [0.0, 0.05, math.pi], colours)
    figure.canvas.draw()
    one, two = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["one", "two"]
    assert [list(line.get_xdata()) for line in one.lines] == [[0.0, 0.1], [0.05, 0.2], [math.pi, 3.0]]
    assert [text.get_text() for text in two.texts] == list(colours)
    assert [text.get_position()[0] for text in one.texts] == [0.0, 0.05, math.pi]
    points = [tuple(dot.get_offsets()[0].tolist()) for dot in one.collections]
    assert points == [(0.0, 1), (0.1, 0.62), (0.05, 1), (0.2, 0.62), (math.pi, 1), (3.0, 0.62)]
    assert [tuple(dot.get_facecolor()[0][:3]) for dot in one.collections[::2]] == list(colours.values())
    height = [text.get_position()[1] for text in one.texts]
    assert height[0] == height[2] < height[1]  # two words of nearly one hue
    assert one.lines[2].get_color() == (0.0, 1.0, 1.0)
    assert plt.get_fignums() == []
