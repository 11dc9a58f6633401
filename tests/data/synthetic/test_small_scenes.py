"""Scenes of one or two objects: captions tell all, pictures show it and nothing else, and splits are apart."""

import numpy as np
import pytest
import torch
from testing_tools import refused

from mmlearn.data.fields import Objects
from mmlearn.data.synthetic import drawing
from mmlearn.data.synthetic.layouts import (
    COLOURS,
    HELD_OUT,
    SHAPES,
    class_names,
    layout_with_boxes,
    layout_with_n_classes,
    small_layout,
)  # fmt: skip
from mmlearn.data.synthetic.scenes import CORNERS, SmallScenes, draw, draw_samples

PAIRS = {(COLOURS[colour], SHAPES[shape]) for colour, shape in HELD_OUT}


def samples(split="train", count=200, **options):
    return SmallScenes(split, **options).__getitems__(list(range(count)))


# Two objects.


def test_captions_name_both_objects_by_colour_and_shape_and_how_they_stand():
    seen = set()
    for sample in samples():
        assert len(sample.objects) == 2
        subject, relation, other = sample.relation
        assert {subject, other} == {0, 1}
        assert sample.relation in sample.graph
        assert sample.stated == relation
        seen.add(relation)
        for number in (subject, other):
            item = sample.objects[number]
            assert f"{item.colour} {item.shape}" in sample.caption
            assert (item.size, item.texture) == ("large", "solid")
        assert sample.objects[0].colour != sample.objects[1].colour
        assert sample.objects[0].shape != sample.objects[1].shape
        assert [sample.caption[link.start : link.end] for link in sample.links] == [
            f"{sample.objects[k].colour} {sample.objects[k].shape}" for k in (subject, other)
        ]
    assert seen == {"left of", "right of", "above", "below"}


def test_objects_stand_where_it_is_said():
    for sample in samples(count=40):
        cells = sample.image.unfold(1, 12, 12).unfold(2, 12, 12).flatten(1, 2)  # (3, 4, 12, 12)
        bright = cells.amax((0, 2, 3)) > 0.45
        assert bright.nonzero()[:, 0].tolist() == sorted(item.cell for item in sample.objects)
        for item, mask in zip(sample.objects, sample.masks):
            assert mask.any()
            rows, columns = np.nonzero(mask.numpy())
            assert (rows // 12 * 2 + columns // 12 == item.cell).all()


@pytest.mark.parametrize("objects", [1, 2])
def test_splits_are_apart_and_new_pairs_are_in_composition_alone(objects):
    for split in ("train", "val", "test"):
        found = samples(split, objects=objects)
        assert not PAIRS & {(item.colour, item.shape) for sample in found for item in sample.objects}
    new = [PAIRS & {(item.colour, item.shape) for item in s.objects} for s in samples("composition", objects=objects)]
    assert all(new) if objects == 2 else any(new)
    images = {split: {sample.image.numpy().tobytes() for sample in samples(split, 50, objects=objects)}
                for split in ("train", "test")}  # fmt: skip
    assert not images["train"] & images["test"]


# One object.


def test_a_caption_of_one_object_says_all():
    seen = set()
    for sample in samples(count=80, size=16, objects=1):
        (item,) = sample.objects
        assert sample.caption == f"a {item.colour} {item.shape} at the {CORNERS[item.cell]}"
        (link,) = sample.links
        assert sample.caption[link.start : link.end] == f"{item.colour} {item.shape}"
        assert (item.size, item.texture) == ("large", "solid")
        assert sample.graph == sample.relations == ()
        seen.add(item.cell)
    assert seen == {0, 1, 2, 3}


def test_the_object_is_where_it_is_said_and_nothing_is_elsewhere():
    words = {"upper": slice(0, 8), "lower": slice(8, 16), "left": slice(0, 8), "right": slice(8, 16)}
    for sample in samples(count=80, size=16, objects=1):
        row, column = (words[word] for word in sample.caption.split()[-2:])
        bright = sample.image.amax(0) > 0.45
        inside = bright[row, column].sum()
        assert inside > 4
        assert inside == bright.sum()
        assert (sample.masks[0] & bright)[row, column].any()


def test_it_is_the_first_of_two():
    one, two = (small_layout("val", np.arange(30), 3, objects) for objects in (1, 2))
    for name in ("colour", "shape", "cell"):
        assert np.array_equal(getattr(one, name)[:, 0], getattr(two, name)[:, 0])


# Few classes.


def of_classes(split="train", count=60, n=4, size=32, seed=0):
    return draw_samples(layout_with_n_classes(split, count, n, seed), size)


@pytest.mark.parametrize("n", [2, 3, 4, 6, 12])
def test_only_these_classes_occur_and_all_of_them(n):
    items = [item for sample in of_classes(count=300, n=n) for item in sample.objects]
    assert {item.colour for item in items} == set(COLOURS[:: 12 // n])
    assert {item.shape for item in items} == set(SHAPES[:: 12 // n])


@pytest.mark.parametrize("n", [0, 1, 5, 8, 24])
def test_other_numbers_of_classes_are_refused(n):
    refused("2, 3, 4, 6 or 12", layout_with_n_classes, "train", 10, n, 0)


@pytest.mark.parametrize("n", [2, 4])
def test_as_many_as_asked_for_also_where_few_are_left(n):
    assert len(layout_with_n_classes("train", 3000, n, 0).colour) == 3000


def test_both_objects_differ_in_both():
    for sample in of_classes(count=200):
        one, two = sample.objects
        assert one.colour != two.colour
        assert one.shape != two.shape


def test_an_answer_is_what_stands_in_the_cell_and_each_object_is_asked_about():
    asked = set()
    for sample in of_classes(count=120):
        kind, text, answer = sample.question
        (item,) = [item for item in sample.objects if getattr(item, kind) == answer]
        row, column = (("one", "two")[number] for number in divmod(item.cell, 2))
        assert text == f"what {kind} is the object in row {row}, column {column}?"
        asked.add((kind, sample.objects.index(item)))
    assert asked == {(kind, number) for kind in ("colour", "shape") for number in (0, 1)}


@pytest.mark.parametrize("size", [24, 32])
def test_a_image_shows_its_layout(size):
    found = of_classes("test", 12, size=size, seed=3)
    drawn = torch.from_numpy(draw(found[0].layout, size))
    assert [sample.row for sample in found] == list(range(12))
    assert all(torch.equal(sample.image, drawn[sample.row]) for sample in found)
    assert np.array_equal(found[5].layout.colour % 3, np.zeros((12, 2)))


def test_splits_and_seeds_of_classes_differ_and_the_same_is_the_same():
    def captions(**how):
        return [sample.caption for sample in of_classes(**how)]

    assert captions() == captions()
    assert captions() != captions(seed=1)
    assert captions() != captions(split="test")


# Boxes of their own: a picture has its object in its box and nowhere else, and fills the box.


def with_boxes(split="train", count=60, n=4, size=32, seed=0):
    return draw_samples(layout_with_boxes(split, count, n, seed), size)


@pytest.mark.parametrize("size", [32, 33, 64])
def test_an_object_reaches_the_edges_of_its_box(size):
    for sample in with_boxes(size=size):
        for (left, top, right, bottom), mask in zip(sample.boxes.tolist(), sample.masks):
            rows, columns = (mask.any(axis).nonzero().flatten() for axis in (1, 0))
            assert top - 0.5 <= rows[0]
            assert left - 0.5 <= columns[0]
            assert rows[-1] + 1 <= bottom + 0.5
            assert columns[-1] + 1 <= right + 0.5
            assert rows[-1] + 1 - rows[0] >= 0.6 * (bottom - top) - 1  # a crescent or a star is thin at its tips
            assert columns[-1] + 1 - columns[0] >= 0.6 * (right - left) - 1


def test_boxes_are_two_fifths_to_all_of_their_cell_and_anywhere_in_it():
    extents, positions = [], []
    for sample in with_boxes(count=300):
        for item in sample.objects:
            row, column = divmod(item.cell, 2)
            left, top, right, bottom = item.box
            assert 16 * column - 1e-9 <= left < right <= 16 * column + 16 + 1e-9
            assert 16 * row - 1e-9 <= top < bottom <= 16 * row + 16 + 1e-9
            assert item.centre == pytest.approx(((left + right) / 2, (top + bottom) / 2))
            extents += [(right - left) / 16, (bottom - top) / 16]
            positions += [(left - 16 * column) / (16 - right + left), (top - 16 * row) / (16 - bottom + top)]  # 0 to 1
    assert 0.4 <= min(extents) < 0.45
    assert 0.95 < max(extents) <= 1 + 1e-9
    small, middle, large = np.histogram(extents, [0.4, 0.6, 0.8, 1.01])[0] / len(extents)
    assert middle < min(small, large) < 0.45  # rather small or large than between
    assert np.histogram(positions, 4)[0].min() > 0.2 * len(positions)
    assert abs(np.corrcoef(extents, positions)[0, 1]) < 0.15


def test_objects_seeds_and_splits_have_their_own():
    one = with_boxes(count=50)[0].layout.boxes[..., 2:]
    assert not np.isclose(one[:, 0], one[:, 1]).any()
    assert not np.isclose(one, with_boxes(count=50, seed=1)[0].layout.boxes[..., 2:]).any()
    assert not np.isclose(one, with_boxes("val", count=50)[0].layout.boxes[..., 2:]).any()
    assert np.array_equal(one, with_boxes(count=50)[0].layout.boxes[..., 2:])


def test_where_a_mask_is_there_is_its_colour_and_edges_are_soft():
    between = 0
    for sample in with_boxes():
        for item, mask in zip(sample.objects, sample.masks):
            off = (sample.image - torch.tensor(drawing.COLOURS[item.colour])[:, None, None]).abs().amax(0)
            assert mask.any()
            assert off[mask].quantile(0.25) < 0.02
            between += ((off[mask] > 0.02) & (off[mask] < 0.5)).sum().item()
    assert between > 100


def test_all_but_the_boxes_is_that_of_other_layouts():
    for sample, other in zip(with_boxes("val", 40, seed=2), of_classes("val", 40, seed=2)):
        assert sample.caption == other.caption
        assert sample.question == other.question
        assert [item.cell for item in sample.objects] == [item.cell for item in other.objects]
        assert torch.equal(sample.image[:, sample.free], other.image[:, other.free])  # the ground
        assert not torch.equal(sample.image, other.image)


def test_names_are_known_and_a_detector_can_learn_them():
    assert class_names(2) == ("red circle", "red ring", "blue circle", "blue ring")
    refused("as classes; got 5", class_names, 5)
    found = with_boxes(count=100)
    assert {name for sample in found for name in sample.names} == set(class_names(4)) == set(found[0].known)
    field = Objects(names=found[0].known)
    batch = field(found)
    for row, sample in enumerate(found):
        assert [field.names[i] for i in batch["object_classes"][row].tolist()] == list(sample.names)
        assert torch.allclose(batch["boxes"][row] * 32, sample.boxes, atol=1e-5)
