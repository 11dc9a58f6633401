"""Scenes of two objects: captions tell all, pictures show it, and splits are apart."""

import numpy as np
import torch
from testing_tools import refused

from mmlearn.data.made.scenes import COLOURS, HELD_OUT, SHAPES
from mmlearn.data.made.two_objects import TwoObjects

PAIRS = {(COLOURS[colour], SHAPES[shape]) for colour, shape in HELD_OUT}


def samples(split="train", count=200, **options):
    return TwoObjects(split, **options).__getitems__(list(range(count)))


def test_a_scene_is_a_function_of_split_number_and_seed():
    one, again = samples(count=5), samples(count=5)
    for left, right in zip(one, again):
        assert torch.equal(left.image, right.image)
        assert left.caption == right.caption
    assert any(left.caption != right.caption for left, right in zip(one, samples(count=5, seed=1)))
    assert torch.equal(TwoObjects()[3].image, one[3].image)
    assert one[0].image.shape == (3, 24, 24)
    refused("multiple of 4", TwoObjects, size=25)


def test_captions_name_both_objects_by_colour_and_shape_and_how_they_stand():
    seen = set()
    for sample in samples():
        assert len(sample.objects) == 2
        subject, relation, other = sample.relation
        assert {subject, other} == {0, 1}
        assert sample.relation in sample.graph
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


def test_splits_are_apart_and_new_pairs_are_in_composition_alone():
    for split in ("train", "val", "test"):
        assert not PAIRS & {(item.colour, item.shape) for sample in samples(split) for item in sample.objects}
    for sample in samples("composition", 50):
        assert PAIRS & {(item.colour, item.shape) for item in sample.objects}
    pictures = {split: {sample.image.numpy().tobytes() for sample in samples(split, 50)} for split in ("train", "test")}
    assert not pictures["train"] & pictures["test"]
