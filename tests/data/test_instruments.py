"""Scenes with instruments hold them, and say which is which."""

import pytest
import torch
from testing_tools import refused

from mmlearn.data.made.instruments import scenes_with

INSTRUMENTS = [("red", "circle"), ("blue", "cross"), ("white", "bar")]


@pytest.mark.parametrize("both", [False, True])
def test_scenes_hold_the_instruments_that_are_told(both):
    samples, kinds = scenes_with(INSTRUMENTS, "val", 6, both=both, size=32, seed=1)
    assert len(samples) == len(kinds) == 6
    for sample, kind in zip(samples, kinds.tolist()):
        named = [sample.objects[sample.relation[place]] for place in (0, 2)]
        looks = [(thing.colour, thing.shape) for thing in named]
        assert kind == [INSTRUMENTS.index(look) if look in INSTRUMENTS else -1 for look in looks]
        assert sample.sources.shape == (2, 16_000)
    assert ((kinds >= 0).sum(1) >= 1 + both).all()
    if both:
        assert (kinds[:, 0] != kinds[:, 1]).all()
    again, same = scenes_with(INSTRUMENTS, "val", 6, both=both, size=32, seed=1)
    assert torch.equal(kinds, same)
    assert torch.equal(samples[0].image, again[0].image)


def test_an_instrument_is_a_colour_and_a_shape():
    refused("not 'red' and 'violin'", scenes_with, [("red", "violin")], "val", 1, both=False)


@pytest.mark.parametrize(
    ("instruments", "both"),
    [([], False), ([("red", "square")], True)],  # two different ones are no one
)
def test_what_no_scene_can_have_is_refused(instruments, both):
    refused("none has such instruments", scenes_with, instruments, "train", 1, both=both)
