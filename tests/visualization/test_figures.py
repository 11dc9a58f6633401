"""What a figure says, read from its artists: titles, frames, numbers, how many pictures, and where an outline lies."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import same_color

matplotlib.use("agg")

from mmlearn.visualization import (
    bars,
    contact_sheet,
    embedding_plane,
    head_table,
    heat_maps,
    loss_curve,
    retrieval_gallery,
    similarity_matrix,
)
from mmlearn.visualization.figures import RIGHT, SHADE, WRONG

IMAGES = torch.rand(9, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def drawable(monkeypatch):
    """Each figure can be drawn, and none is left open for the end of the cell."""
    yield
    assert plt.get_fignums() == []


def draw(figure):
    figure.canvas.draw()
    return figure


def shown(axis):
    """The pictures of an axis as arrays."""
    return [np.asarray(image.get_array()) for image in axis.get_images()]


def pixels(image):
    return image.permute(1, 2, 0).numpy()


def frame(axis):
    colours = {matplotlib.colors.to_hex(spine.get_edgecolor()) for spine in axis.spines.values()}
    (colour,) = colours
    return colour


# Curves and bars.


def test_a_loss_curve_shows_every_step_the_last_mean_and_chance():
    history = [{"step": 10 + i, "loss": 5 - i / 20, "accuracy": i / 80} for i in range(80)]
    figure = draw(loss_curve(history, chance=5.5452))
    (axis,) = figure.axes
    smooth, raw, chance = axis.get_lines()
    np.testing.assert_allclose(raw.get_ydata(), [item["loss"] for item in history])
    np.testing.assert_allclose(raw.get_xdata(), range(10, 90))
    np.testing.assert_allclose(smooth.get_ydata(), [5 - (i - 0.5) / 20 for i in range(1, 80)])  # the mean of two
    np.testing.assert_allclose(smooth.get_xdata(), range(11, 90))
    assert set(chance.get_ydata()) == {5.5452}
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["loss  (last 1.075)", "knows nothing: 5.545"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("step", "loss")
    (axis,) = draw(loss_curve(history, chance=0.5, knows="all but the coins")).axes
    assert axis.get_legend().get_texts()[1].get_text() == "knows all but the coins: 0.500"
    other = draw(loss_curve(history, name="accuracy"))
    np.testing.assert_allclose(other.axes[0].get_lines()[1].get_ydata(), [i / 80 for i in range(80)])


def test_several_runs_have_a_name_and_a_colour_each():
    runs = {name: [{"step": i, "loss": float(start)} for i in range(3)] for name, start in (("one", 1), ("two", 2))}
    (axis,) = draw(loss_curve(runs)).axes
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["one  (last 1.000)", "two  (last 2.000)"]
    one, one_raw, two, two_raw = axis.get_lines()
    assert one.get_color() == one_raw.get_color() != two.get_color() == two_raw.get_color()


def test_one_step_is_a_curve_too():
    assert len(draw(loss_curve([{"step": 1, "loss": 2.0}])).axes[0].get_lines()) == 2


def test_bars_carry_their_numbers_and_a_dot_a_seed():
    figure = draw(bars({"clip": 0.5, "filip": [0.6, 0.8, 0.7]}, label="R@1", chance=0.0039, title="scenes"))
    (axis,) = figure.axes
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([0.5, 0.7])
    assert [text.get_text().strip() for text in axis.texts] == ["0.500", "0.700"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["clip", "filip"]
    assert axis.yaxis_inverted()  # the first on top
    dots = [line for line in axis.get_lines() if line.get_marker() == "o"]
    assert [sorted(line.get_xdata().tolist()) for line in dots] == [[0.6, 0.7, 0.8]]
    assert (axis.get_title(), axis.get_xlabel()) == ("scenes", "R@1")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["chance 0.0039"]


def test_bars_show_recorded_seeds_of_each_scale_and_the_chance_of_each_bar():
    recorded = {"laptop": {"one": [0.1, 0.9, 0.3], "two": [0.5]}, "long": {"two": [0.7, 0.8]}}
    figure = draw(bars({"one": 0.4, "two": 0.6}, label="R@1", chance={"one": 0.25}, recorded=recorded))
    (axis,) = figure.axes
    dots = {tuple(line.get_xdata()): line.get_ydata()[0] for line in axis.get_lines() if line.get_marker() == "o"}
    assert set(dots) == {(0.1, 0.9, 0.3), (0.5,), (0.7, 0.8)}
    assert abs(dots[0.1, 0.9, 0.3]) < 0.5  # on its bar
    assert 0.5 < dots[0.5,] < 1.5 > dots[0.7, 0.8] != dots[0.5,]  # the scales do not hide each other
    (tick,) = [line for line in axis.get_lines() if line.get_marker() != "o"]
    assert set(tick.get_xdata()) == {0.25}
    told = {text.get_text() for text in figure.legends[0].get_texts()}
    assert told == {"this run", "laptop, recorded", "chance", "long, recorded"}
    numbers = {text.get_text(): text.get_position() for text in axis.texts}
    assert numbers == {"0.400": (1.01, 0), "0.600": (1.01, 1)}  # in a column beside the axis


def test_a_scale_keeps_its_colour_and_height_where_another_has_no_record():
    recorded = {"laptop": {"one": [0.1]}, "long": {"one": [0.2], "two": [0.3]}}
    figure = draw(bars({"one": 0.4, "two": 0.6}, label="R@1", recorded=recorded))
    dots = {line.get_xdata()[0]: line for line in figure.axes[0].get_lines()}
    assert dots[0.3].get_color() == dots[0.2].get_color() != dots[0.1].get_color()
    assert dots[0.3].get_ydata()[0] - 1 == pytest.approx(dots[0.2].get_ydata()[0])


# Similarities.


def test_a_similarity_matrix_says_how_often_the_pair_is_largest():
    scores = torch.eye(5)
    scores[1, 3], scores[2, 3] = 2.0, 3.0
    in_full = "a small striped magenta hourglass right of a large dotted magenta triangle"
    captions = ["a red circle"] * 3 + [in_full, "a caption that is far too long to be shown beside a matrix " * 3]
    figure = draw(similarity_matrix(scores, captions, list(IMAGES[:5]), title="after"))
    axis = figure.axes[0]
    assert axis.get_title() == "after\nthe pair is the largest of its row in 3 of 5"
    np.testing.assert_array_equal(shown(axis)[0], scores.numpy())
    told = axis.get_xlabel().splitlines()
    assert told[:2] == ["texts", "1  a red circle"]
    assert told[4] == f"4  {in_full}"
    assert told[5].startswith("5  a caption that")
    assert told[5].endswith("…")
    assert len(told[5]) < 95
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "2", "3", "4", "5"]
    corners = sorted((patch.get_x(), patch.get_y()) for patch in axis.patches if patch.get_width() == 1)
    assert corners == [(i - 0.5, i - 0.5) for i in range(5)]  # the diagonal is framed
    insets = axis.child_axes
    assert len(insets) == 5
    for inset, image in zip(insets, IMAGES):
        np.testing.assert_allclose(shown(inset)[0], pixels(image))


def test_a_similarity_matrix_alone():
    figure = draw(similarity_matrix(torch.eye(3)))
    assert figure.axes[0].get_title() == "the pair is the largest of its row in 3 of 3"
    assert figure.axes[0].child_axes == []


def test_a_gallery_frames_the_right_image_and_counts_it():
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.3], [0.8, 0.2, 0.7, 0.75], [0.1, 0.2, 0.3, 0.4]])
    right = [2, 1, 3]  # second, not among the first three, first
    figure = draw(retrieval_gallery(["one", "two", "three"], list(IMAGES[:4]), scores, right, top=3, title="emoji"))
    assert figure.get_suptitle() == "emoji\nright picture among the first 3: 2 of 3"
    rows = np.array(figure.axes).reshape(3, 4)
    assert [row[0].texts[0].get_text() for row in rows] == ["one", "two", "three"]
    expected = [[1, 2, 3], [0, 3, 2], [3, 2, 1]]
    for i, row in enumerate(rows):
        for axis, index in zip(row[1:], expected[i]):
            np.testing.assert_allclose(shown(axis)[0], pixels(IMAGES[index]))
            assert axis.get_title() == f"{scores[i, index]:.2f}"
            assert same_color(frame(axis), RIGHT) == (index == right[i])


# Maps.

REGIONS = torch.zeros(3, 4)
REGIONS[0, 1], REGIONS[1, 2], REGIONS[2, 3] = 1, 0.2, 1
MAPS = torch.tensor([[0.1, 0.7, 0.1, 0.1], [0.2, 0.2, 0.5, 0.1], [0.4, 0.3, 0.2, 0.1]])  # the last points elsewhere


def test_heat_maps_carry_their_numbers_and_frames():
    words = ["small red circle", "blue square", "ring"]
    figure = draw(heat_maps(IMAGES[:3], words, MAPS, REGIONS, (2, 2), source="layer 2, head 1", columns=2))
    assert figure.get_suptitle() == (
        "layer 2, head 1\npoints at the named object in 0.67 of 3 maps (chance 0.25)\n"
        "white outline: where the object is; green: the map is highest there, red: it is highest elsewhere"
    )
    axes = figure.axes
    assert len(axes) == 4
    assert not axes[3].axison
    for axis, image, word, weights, region, right in zip(axes, IMAGES, words, MAPS, REGIONS, (True, True, False)):
        below, above = axis.get_images()
        np.testing.assert_allclose(np.asarray(below.get_array()), pixels(image))
        shade = np.asarray(above.get_array())  # black, the more opaque the lower the weight
        assert (shade[..., :3] == 0).all()
        share = (weights - weights.min()) / (weights.max() - weights.min())
        np.testing.assert_allclose(shade[..., 3], SHADE * (1 - share.reshape(2, 2)), rtol=1e-5)
        assert shade[..., 3].min() == 0  # the highest keeps its colours
        assert above.get_extent() == [-0.5, 7.5, 7.5, -0.5]  # the map lies on the whole picture
        assert axis.get_title().replace("\n", " ") == word
        assert same_color(frame(axis), RIGHT if right else WRONG)
        assert same_color(axis.title.get_color(), RIGHT if right else WRONG)
        path = np.concatenate([path.vertices for path in axis.collections[0].get_paths()])
        row, column = divmod(int(region.argmax()), 2)
        middle = (path.max(0) + path.min(0)) / 2  # x, y
        assert abs(middle[0] - (column * 4 + 1.5)) < 1.1
        assert abs(middle[1] - (row * 4 + 1.5)) < 1.1


def test_heat_maps_of_a_sample_show_the_number_of_the_whole():
    figure = draw(
        heat_maps(IMAGES[:3], ["a", "b", "c"], MAPS, REGIONS, (2, 2), source="FILIP", accuracy=0.981, total=512)
    )
    assert figure.get_suptitle().startswith("FILIP\npoints at the named object in 0.98 of 512 maps (chance 0.25)")


def test_heat_maps_tell_what_the_model_says_and_the_chance_that_is_given():
    words, said = ["red ring", "blue square"], ["green", "blue"]
    figure = draw(heat_maps(IMAGES[:2], words, MAPS[:2], REGIONS[:2], (2, 2), source="x", predicted=said, chance=0.5))
    assert [axis.get_xlabel() for axis in figure.axes[:2]] == ["says: green", "says: blue"]
    assert "(chance 0.5)" in figure.get_suptitle()


def test_heat_maps_on_a_grid_that_is_not_square():
    regions = torch.zeros(1, 8)
    regions[0, 6] = 1  # row 1, column 2 of 2 × 4
    figure = draw(heat_maps(IMAGES[:1], ["word"], regions, regions, (2, 4), source="x"))
    path = np.concatenate([path.vertices for path in figure.axes[0].collections[0].get_paths()])
    assert path[:, 0].min() > 2.9
    assert path[:, 0].max() < 6.1
    assert path[:, 1].min() > 2.9
    assert np.asarray(figure.axes[0].get_images()[1].get_array()).shape == (2, 4, 4)


def test_a_head_table_names_every_layer_and_head():
    table = torch.tensor([[0.12, 0.98, 0.5], [0.11, 0.1, 0.73]])
    figure = draw(head_table(table, ["text.0", "text.1"], chance=0.123))
    axis = figure.axes[0]
    assert axis.get_title() == "pointing accuracy (chance 0.12)"
    told = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axis.texts}
    assert told == {(0, 0): "0.12", (0, 1): "0.98", (0, 2): "0.50", (1, 0): "0.11", (1, 1): "0.10", (1, 2): "0.73"}
    assert [label.get_text() for label in axis.get_yticklabels()] == ["text.0", "text.1"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["head 0", "head 1", "head 2"]
    assert axis.get_images()[0].get_clim() == (0, 1)


@pytest.mark.parametrize("count", [1, 5, 7])
def test_a_contact_sheet_has_every_image_with_its_caption(count):
    captions = [f"caption number {i}" for i in range(count)]
    figure = draw(contact_sheet(list(IMAGES[:count]), captions, columns=4, title="emoji"))
    assert figure.get_suptitle() == "emoji"
    used = [axis for axis in figure.axes if axis.get_images()]
    assert len(used) == count
    assert not any(axis.axison for axis in figure.axes[count:])
    for axis, image, caption in zip(used, IMAGES, captions):
        np.testing.assert_allclose(shown(axis)[0], pixels(image))
        assert axis.get_xlabel().replace("\n", " ") == caption


def test_pixels_outside_0_to_1_are_clipped():
    figure = draw(contact_sheet([torch.full((3, 4, 4), 1.5), torch.full((3, 4, 4), -1.0)], ["a", "b"], columns=2))
    assert [set(shown(axis)[0].flat) for axis in figure.axes] == [{1.0}, {0.0}]


def test_the_plane_shows_both_clouds_their_pairs_and_the_gap():
    """Two clouds one apart along an axis, in 16 dimensions."""
    generator = torch.Generator().manual_seed(0)
    image = 0.01 * torch.randn(20, 16, generator=generator)
    text = image.clone()
    text[:, 3] += 1
    figure = draw(embedding_plane({"a model": (image, text), "one cloud": (image, image)}))
    for axis, gap in zip(figure.axes, ("1.00", "0.00")):
        assert f"gap {gap}" in axis.get_title()
        assert len(axis.lines) == 20
        assert [len(points.get_offsets()) for points in axis.collections] == [20, 20]
    one, two = (points.get_offsets().mean(0) for points in figure.axes[0].collections)
    assert abs(np.linalg.norm(one - two) - 1) < 0.02
    ends = figure.axes[0].lines[7].get_xydata()
    positions = [points.get_offsets()[7] for points in figure.axes[0].collections]
    np.testing.assert_allclose(ends, positions, atol=1e-6)
    assert "plane shows 100%" in figure.axes[0].get_title()


# Text.


def texts(figure):
    return {text.get_text() for text in figure.findobj(matplotlib.text.Text)}


@pytest.mark.parametrize("text", ["costs $5_1 or $x^{1", "a $HOME\\bin$", r"\$5", "one $ alone", "$\\frac$"])
def test_dollars_are_no_mathematics(text):
    """Wherever a name or a caption is drawn, its letters are those that it has."""
    cloud, one = torch.eye(3), list(IMAGES[:1])
    figures = [
        loss_curve({text: [{"step": 1, "loss": 2.0}]}),
        similarity_matrix(cloud[:1, :1], [text], one, title=text),
        retrieval_gallery([text], one, cloud[:1, :1], [0], top=1, title=text),
        heat_maps(IMAGES[:1], [text], MAPS[:1], REGIONS[:1], (2, 2), source=text),
        head_table(torch.eye(2), [text, "b"], chance=0.1),
        bars({text: 0.5}, label=text, title=text),
        embedding_plane({text: (cloud, cloud)}),
        contact_sheet(one, [text], title=text),
    ]
    for figure in figures:
        draw(figure)
        assert any(text in told.replace("\n", " ") for told in texts(figure))
        assert not any(part.get_parse_math() for part in figure.findobj(matplotlib.text.Text) if "$" in part.get_text())
    assert matplotlib.rcParams["text.parse_math"]  # of others' figures
