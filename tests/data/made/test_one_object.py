"""Scenes of one object: the caption tells colour, shape and place, the picture shows them, and nothing else."""

import numpy as np
import torch

from mmlearn.data.made.one_object import PLACES, lay_out_one, one_object_samples
from mmlearn.data.made.scenes import COLOURS, HELD_OUT, SHAPES
from mmlearn.data.made.two_objects import lay_out_two

PAIRS = {(COLOURS[colour], SHAPES[shape]) for colour, shape in HELD_OUT}


def samples(split="train", count=80, size=16, seed=0):
    return one_object_samples(lay_out_one(split, np.arange(count), seed), size)


def test_a_caption_says_all():
    seen = set()
    for sample in samples():
        (item,) = sample.objects
        assert sample.caption == f"a {item.colour} {item.shape} at the {PLACES[item.cell]}"
        (link,) = sample.links
        assert sample.caption[link.start : link.end] == f"{item.colour} {item.shape}"
        assert (item.size, item.texture) == ("large", "solid")
        assert sample.graph == sample.relations == ()
        seen.add(item.cell)
    assert seen == {0, 1, 2, 3}


def test_the_object_is_where_it_is_said_and_nothing_is_elsewhere():
    words = {"upper": slice(0, 8), "lower": slice(8, 16), "left": slice(0, 8), "right": slice(8, 16)}
    for sample in samples():
        row, column = (words[word] for word in sample.caption.split()[-2:])
        bright = sample.image.amax(0) > 0.45
        inside = bright[row, column].sum()
        assert inside > 4
        assert inside == bright.sum()
        assert (sample.masks[0] & bright)[row, column].any()


def test_it_is_the_first_of_two():
    one, two = lay_out_one("val", np.arange(30), 3), lay_out_two("val", np.arange(30), 3)
    for name in ("colour", "shape", "cell"):
        assert np.array_equal(getattr(one, name)[:, 0], getattr(two, name)[:, 0])
    assert all(torch.equal(a.image, b.image) for a, b in zip(samples(seed=4, count=5), samples(seed=4, count=5)))


def test_new_pairs_are_in_composition_alone():
    for split in ("train", "val", "test", "composition"):
        new = {(item.colour, item.shape) in PAIRS for sample in samples(split) for item in sample.objects}
        assert (True in new) == (split == "composition")
