"""Figures of sounds, read from their artists: what is framed, which numbers they carry, where lines lie."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

matplotlib.use("agg")

from matplotlib.colors import to_hex

from mmlearn.visualization import (
    attention_over_sounds,
    caption_matrix,
    grouped_bars,
    images_found,
    spectrogram_rows,
    word_times,
)
from mmlearn.visualization.figures import RIGHT


@pytest.fixture(autouse=True)
def drawable():
    """No figure is left open for the end of the cell."""
    yield
    assert plt.get_fignums() == []


def draw(figure):
    figure.canvas.draw()
    return figure


def shown(axis):
    return np.ma.filled(axis.get_images()[0].get_array(), np.nan)


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_spectrograms_in_rows_with_gaps_left_out():
    mel = noise(5, 9)
    gap = mel.clone()
    gap[:, 3:6] = torch.nan
    figure = draw(spectrogram_rows({"whole": mel, "a $gap$": gap}, title="off by 0.5"))
    assert [axis.get_title() for axis in figure.axes] == ["whole", "a $gap$"]
    np.testing.assert_array_equal(shown(figure.axes[0]), mel.numpy())
    np.testing.assert_array_equal(np.isnan(shown(figure.axes[1])).any(0), [False] * 3 + [True] * 3 + [False] * 3)
    assert figure.get_suptitle() == "off by 0.5"


def test_words_are_framed_when_they_sound():
    maps = {"one": noise(2, 3, 12), "other": noise(2, 3, 12)}
    begin, end = torch.tensor([[0.0, 2, 4], [1, 3, 5]]), torch.tensor([[1.0, 5, 7], [2, 6, 9]])
    words = [["red", "big", "dog"], ["a", "b", "c"]]
    figure = draw(word_times(maps, words, begin, end, title="by chance 0.3"))
    assert [axis.get_title() for axis in figure.axes] == ["one", "other", "", ""]
    for k, axis in enumerate(figure.axes):
        clip = k // 2
        np.testing.assert_array_equal(shown(axis), list(maps.values())[k % 2][clip].numpy())
        assert [label.get_text() for label in axis.get_yticklabels()] == words[clip]
        for line, frame in enumerate(axis.patches):
            assert frame.get_x() == begin[clip, line] - 0.5
            assert frame.get_x() + frame.get_width() == end[clip, line] + 0.5
            assert frame.get_y() < line < frame.get_y() + frame.get_height()
    assert figure.get_suptitle() == "by chance 0.3"


def test_a_head_is_drawn_over_its_sound():
    mel, looks, middle = noise(2, 8, 100), noise(2, 4), torch.tensor([0.1, 0.3, 0.5, 0.7])
    spans = [(0.2, 0.4), (0.5, 0.9)]
    figure = draw(attention_over_sounds(mel, looks, middle, spans, ["x", "y"], title="t"))
    sounds, heads = figure.axes[:2], figure.axes[2:]
    for i, (axis, over) in enumerate(zip(sounds, heads)):
        assert axis.get_images()[0].get_extent() == [0, 1, 0, 8]
        assert [line.get_xdata()[0] for line in axis.lines] == list(spans[i])
        np.testing.assert_allclose(over.lines[0].get_xdata(), middle)
        np.testing.assert_allclose(over.lines[0].get_ydata(), looks[i])
    assert [axis.get_title() for axis in sounds] == ["x", "y"]


def test_captions_in_two_parts():
    figure = draw(caption_matrix(noise(4, 2), ["a", "b", "c", "d"], parts=2, title="right 0.5"))
    axis = figure.axes[0]
    assert axis.get_title() == "right 0.5"
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b", "c", "d"]
    assert [line.get_ydata()[0] for line in axis.lines] == [1.5]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["sound 0", "sound 1"]
    (axis, _) = draw(caption_matrix(noise(2, 7), ["a", "b"])).axes
    assert [label.get_text() for label in axis.get_xticklabels()] == list("0123456")
    assert axis.get_xlabel() == "sound"


def test_bars_side_by_side_with_their_means():
    values = {"one": [0.2, 0.4], "other": [0.9, 0.5]}
    figure = draw(grouped_bars(values, ["es", "ru"], chance=[0.1, 0.3], label="R@10", title="found"))
    (axis,) = figure.axes
    assert [bar.get_height() for bar in axis.patches] == [0.2, 0.4, 0.9, 0.5]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [
        "one (0.30)", "other (0.70)", "by chance (0.20)",
    ]  # fmt: skip
    left, right = axis.patches[0], axis.patches[2]
    assert left.get_x() + left.get_width() == pytest.approx(right.get_x())
    ticks = axis.get_xticks()
    assert ticks[0] == pytest.approx(right.get_x())  # the middle of the group
    assert ticks[1] == pytest.approx(axis.patches[3].get_x())
    (lines,) = axis.collections
    for segment, level, first in zip(lines.get_segments(), (0.1, 0.3), axis.patches[:2]):
        assert segment[:, 1].tolist() == [level] * 2
        assert segment[0, 0] == pytest.approx(first.get_x())
    assert len(draw(grouped_bars(values, ["es", "ru"])).axes[0].get_legend().get_texts()) == 2


def test_right_images_are_framed_and_their_rank_is_told():
    images = (255 * noise(5, 3, 6, 6)).to(torch.uint8)
    similarity = torch.tensor([[0.1, 0.9, 0.5, 0.3, 0.2], [0.1, 0.2, 0.3, 0.4, 0.5]])
    right = torch.tensor([[False, False, True, False, False], [True, True, False, False, False]])
    figure = draw(images_found(similarity, right, images, ["“dog”", "“cat”"], shown=3, title="R@10 0.4"))
    rows = np.array(figure.axes).reshape(2, 3)
    order = [[1, 2, 3], [4, 3, 2]]
    for row, positions, answers in zip(rows, order, right):
        for axis, position in zip(row, positions):
            np.testing.assert_array_equal(shown(axis), images[position].permute(1, 2, 0).numpy())
            green = to_hex(axis.spines["left"].get_edgecolor()) == RIGHT
            assert green == bool(answers[position])
    assert [row[0].texts[0].get_text() for row in rows] == ["“dog”: rank 2 of 5", "“cat”: rank 4 of 5"]
    assert figure.get_suptitle().strip() == "R@10 0.4"
