"""Crowded scenes without two objects that are alike but for their colours."""

from collections import Counter

import numpy as np
import pytest
import torch

from mmlearn.data import fetch
from mmlearn.data.made.named_once import NamedOnce, lay_out_named_once
from mmlearn.data.made.scenes import COLOURS, HELD_OUT, SHAPES, SPLITS

UNSEEN = {(COLOURS[colour], SHAPES[shape]) for colour, shape in HELD_OUT}


def nameless(item):
    return item.size, item.texture, item.shape


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("objects", [16, 32])
def test_each_name_without_its_colour_fits_one_object(split, objects):
    for sample in fetch(NamedOnce(split, size=28, objects=objects), range(50)):
        assert len({nameless(item) for item in sample.objects}) == len(sample.objects) == objects
        named = [sample.objects[link.object] for link in sample.links]
        assert [sample.caption[link.start : link.end] for link in sample.links] == [item.name for item in named]
        held_out = [item for item in sample.objects if (item.colour, item.shape) in UNSEEN]
        assert all(item in named for item in held_out)
        assert len(held_out) == (split == "composition")


def test_nothing_else_tells_a_colour():
    samples = fetch(NamedOnce(size=28, objects=24), range(2000))
    colours = Counter(sample.objects[sample.links[0].object].colour for sample in samples)
    assert set(colours) == set(COLOURS)
    assert max(colours.values()) < 2 * min(colours.values())
    # In crowded scenes the other objects have the colours of the mentioned ones; here a colour is drawn by itself.
    alone = sum(
        all(item.colour != sample.objects[sample.links[0].object].colour for item in sample.objects if item is not own)
        for sample in samples
        for own in [sample.objects[sample.links[0].object]]
    )
    assert alone / len(samples) == pytest.approx((1 - 1 / 12) ** 23, abs=0.04)


def test_layouts_follow_seed_and_split_and_have_every_pair_that_is_not_held_out():
    index = np.arange(20_000)
    one, seed, split = (lay_out_named_once(*of) for of in (("train", index, 0), ("train", index, 1), ("val", index, 0)))
    assert (one.shape != seed.shape).any()
    assert (one.shape != split.shape).any()
    present = np.arange(32) < one.count[:, None]
    pairs = set(zip(one.colour[present].tolist(), one.shape[present].tolist()))
    assert len(pairs) == 12 * 12 - len(HELD_OUT)


def test_a_scene_is_a_function_of_its_number():
    one, other = NamedOnce(seed=1, size=28), NamedOnce(seed=1, size=28)
    assert torch.equal(one[7].image, fetch(other, [3, 7])[1].image)
    assert one[7].caption != NamedOnce(seed=2, size=28)[7].caption
    assert one[7].caption == NamedOnce(seed=1, size=224)[7].caption
