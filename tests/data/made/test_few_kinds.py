"""Scenes of few kinds: only these occur, both objects differ, and a question's answer is what stands in its cell."""

import numpy as np
import pytest
import torch
from testing_tools import refused

from mmlearn.data.made.few_kinds import few_kinds, lay_out_few
from mmlearn.data.made.scenes import COLOURS, SHAPES, draw


def samples(split="train", count=60, kinds=4, size=32, seed=0):
    return few_kinds(split, count, kinds=kinds, size=size, seed=seed)


@pytest.mark.parametrize("kinds", [2, 3, 4, 6, 12])
def test_only_these_kinds_occur_and_all_of_them(kinds):
    step = 12 // kinds
    items = [item for sample in samples(count=300, kinds=kinds) for item in sample.objects]
    assert {item.colour for item in items} == set(COLOURS[::step])
    assert {item.shape for item in items} == set(SHAPES[::step])


@pytest.mark.parametrize("kinds", [0, 1, 5, 8, 24])
def test_other_numbers_of_kinds_are_refused(kinds):
    refused("2, 3, 4, 6 or 12 kinds", lay_out_few, "train", 10, kinds, 0)


@pytest.mark.parametrize("kinds", [2, 4])
def test_as_many_as_asked_for_also_where_few_are_left(kinds):
    assert len(lay_out_few("train", 3000, kinds, 0).colour) == 3000


def test_both_objects_differ_in_both():
    for sample in samples(count=200):
        one, two = sample.objects
        assert one.colour != two.colour
        assert one.shape != two.shape


def test_an_answer_is_what_stands_in_the_cell_and_each_object_is_asked_about():
    asked = set()
    for sample in samples(count=120):
        kind, text, answer = sample.question
        (item,) = [item for item in sample.objects if getattr(item, kind) == answer]
        row, column = (("one", "two")[number] for number in divmod(item.cell, 2))
        assert text == f"what {kind} is the object in row {row}, column {column}?"
        asked.add((kind, sample.objects.index(item)))
    assert asked == {(kind, number) for kind in ("colour", "shape") for number in (0, 1)}


@pytest.mark.parametrize("size", [24, 32])
def test_a_picture_shows_its_layout(size):
    found = samples("test", 12, size=size, seed=3)
    drawn = torch.from_numpy(draw(found[0].layout, size))
    assert [sample.row for sample in found] == list(range(12))
    assert all(torch.equal(sample.image, drawn[sample.row]) for sample in found)
    assert np.array_equal(found[5].layout.colour % 3, np.zeros((12, 2)))


def test_splits_and_seeds_differ_and_the_same_is_the_same():
    def captions(**how):
        return [sample.caption for sample in samples(**how)]

    assert captions() == captions()
    assert captions() != captions(seed=1)
    assert captions() != captions(split="test")
