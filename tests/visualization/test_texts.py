"""Texts with a number at each token, read from their artists."""

import math

import matplotlib
import matplotlib.pyplot as plt
import pytest
from testing_tools import refused

matplotlib.use("agg")

from mmlearn.visualization import token_heat

ROWS = {"left to right": [("a", 0.5), ("$red", 2.0), ("star", 4.0)], "gaps": [("a", math.nan), ("star", 0.26)]}


def test_each_token_has_its_number_and_colour():
    figure = token_heat(ROWS, label="nats", title="loss")
    figure.canvas.draw()
    assert plt.get_fignums() == []
    axis, bar = figure.axes
    texts = {text.get_position(): text for text in axis.texts}
    said = {place: text.get_text() for place, text in texts.items()}
    assert said == {(0, 0): "a\n0.5", (1, 0): "$red\n2.0", (2, 0): "star\n4.0", (0, 1): "a", (1, 1): "star\n0.3"}
    assert {place: text.get_color() for place, text in texts.items() if text.get_color() == "white"} == {
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


@pytest.mark.parametrize("rows", [{}, {"empty": []}])
def test_without_a_token_it_says_so(rows):
    refused("There is no token to draw", token_heat, rows, label="nats")
