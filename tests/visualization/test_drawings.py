"""Grids of drawings: rows and pairs are named, what is right or held out is framed."""

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import to_rgba
from testing_tools import refused

from mmlearn.visualization import drawings as draw


def test_rows_of_drawings_name_their_rows_and_frame_what_is_right():
    images = [torch.rand(3, 8, 8)] * 2
    figure = draw.drawn_rows({"step 0": images, "step 9": images}, ["a", "b"], right={"step 9": [True, False]})
    assert [axis.get_title() for axis in figure.axes[:2]] == ["a", "b"]
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == ["step 0", "step 9"]
    frames = [axis.spines["left"].get_edgecolor() for axis in figure.axes]
    assert frames[2:] == [to_rgba(draw.RIGHT), to_rgba(draw.WRONG)]
    assert frames[0] == frames[1]
    plt.close(figure)
    refused("has 2 pictures, and there are 1 captions", draw.drawn_rows, {"x": images}, ["a"])


def test_a_grid_of_pairs_leaves_empty_what_it_has_not():
    images = {("red", "car"): torch.rand(3, 8, 8), ("blue", "car"): torch.rand(3, 8, 8)}
    held = [("blue", "book")]
    figure = draw.pair_grid(images, ["red", "blue"], ["car", "book"], held_out=held, wrong=[("red", "car")])
    assert [len(axis.images) for axis in figure.axes] == [1, 0, 1, 0]
    assert [len(axis.texts) for axis in figure.axes] == [1, 0, 0, 0]
    assert figure.axes[3].spines["left"].get_linestyle() != figure.axes[0].spines["left"].get_linestyle()
    figure.savefig("/dev/null", format="png")
    plt.close(figure)
    assert draw.enlarged(torch.rand(3, 8, 8)).shape == (3, 32, 32)
