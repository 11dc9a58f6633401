"""Scenes with boxes of their own: a picture has its object in its box and nowhere else, and fills the box."""

import numpy as np
import pytest
import torch
from testing_tools import refused

from mmlearn.data.fields import Objects
from mmlearn.data.made import drawing
from mmlearn.data.made.few_kinds import few_kinds
from mmlearn.data.made.varied_boxes import known_names, varied_boxes


def samples(split="train", count=60, kinds=4, size=32, seed=0):
    return varied_boxes(split, count, kinds=kinds, size=size, seed=seed)


@pytest.mark.parametrize("size", [32, 33, 64])
def test_an_object_reaches_the_edges_of_its_box(size):
    for sample in samples(size=size):
        for (left, top, right, bottom), mask in zip(sample.boxes.tolist(), sample.masks):
            rows, columns = (mask.any(axis).nonzero().flatten() for axis in (1, 0))
            assert top - 0.5 <= rows[0]
            assert left - 0.5 <= columns[0]
            assert rows[-1] + 1 <= bottom + 0.5
            assert columns[-1] + 1 <= right + 0.5
            assert rows[-1] + 1 - rows[0] >= 0.6 * (bottom - top) - 1  # a crescent or a star is thin at its tips
            assert columns[-1] + 1 - columns[0] >= 0.6 * (right - left) - 1


def test_boxes_are_two_fifths_to_all_of_their_cell_and_anywhere_in_it():
    extents, places = [], []
    for sample in samples(count=300):
        for item in sample.objects:
            row, column = divmod(item.cell, 2)
            left, top, right, bottom = item.box
            assert 16 * column - 1e-9 <= left < right <= 16 * column + 16 + 1e-9
            assert 16 * row - 1e-9 <= top < bottom <= 16 * row + 16 + 1e-9
            assert item.centre == pytest.approx(((left + right) / 2, (top + bottom) / 2))
            extents += [(right - left) / 16, (bottom - top) / 16]
            places += [(left - 16 * column) / (16 - right + left), (top - 16 * row) / (16 - bottom + top)]  # 0 to 1
    assert 0.4 <= min(extents) < 0.45
    assert 0.95 < max(extents) <= 1 + 1e-9
    small, middle, large = np.histogram(extents, [0.4, 0.6, 0.8, 1.01])[0] / len(extents)
    assert middle < min(small, large) < 0.45  # rather small or large than between
    assert np.histogram(places, 4)[0].min() > 0.2 * len(places)
    assert abs(np.corrcoef(extents, places)[0, 1]) < 0.15


def test_objects_seeds_and_splits_have_their_own():
    one = samples(count=50)[0].ovals[..., 2:]
    assert not np.isclose(one[:, 0], one[:, 1]).any()
    assert not np.isclose(one, samples(count=50, seed=1)[0].ovals[..., 2:]).any()
    assert not np.isclose(one, samples("val", count=50)[0].ovals[..., 2:]).any()
    assert np.array_equal(one, samples(count=50)[0].ovals[..., 2:])


def test_where_a_mask_is_there_is_its_colour_and_edges_are_soft():
    between = 0
    for sample in samples():
        for item, mask in zip(sample.objects, sample.masks):
            off = (sample.image - torch.tensor(drawing.COLOURS[item.colour])[:, None, None]).abs().amax(0)
            assert mask.any()
            assert off[mask].quantile(0.25) < 0.02
            between += ((off[mask] > 0.02) & (off[mask] < 0.5)).sum().item()
    assert between > 100


def test_all_but_the_boxes_is_that_of_few_kinds():
    for sample, other in zip(samples("val", 40, seed=2), few_kinds("val", 40, kinds=4, size=32, seed=2)):
        assert sample.caption == other.caption
        assert sample.question == other.question
        assert [item.cell for item in sample.objects] == [item.cell for item in other.objects]
        assert torch.equal(sample.image[:, sample.free], other.image[:, other.free])  # the ground
        assert not torch.equal(sample.image, other.image)


def test_names_are_known_and_a_detector_can_learn_them():
    assert known_names(2) == ("red circle", "red ring", "blue circle", "blue ring")
    refused("kinds", known_names, 5)
    found = samples(count=100)
    assert {name for sample in found for name in sample.names} == set(known_names(4)) == set(found[0].known)
    field = Objects(names=found[0].known)
    batch = field(found)
    for row, sample in enumerate(found):
        assert [field.names[i] for i in batch["object_classes"][row].tolist()] == list(sample.names)
        assert torch.allclose(batch["boxes"][row] * 32, sample.boxes, atol=1e-5)
