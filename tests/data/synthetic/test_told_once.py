"""Collages in which each colour is told once: captions, grey things, features, and other colours."""

import torch

from mmlearn.data.synthetic.cutouts import COLOURS
from mmlearn.data.synthetic.told_once import NOUNS, WORDS, told_once


def test_each_colour_is_told_by_the_caption_or_by_the_picture():
    data = told_once("test", 12)
    question = data.ask(torch.arange(12), torch.Generator().manual_seed(0))
    assert (question.hidden.sum(1) == 2).all()
    assert len({tuple(row) for row in question.position.tolist()}) > 6  # orders
    for row, sample in enumerate(data.samples):
        words = question.words(row)
        assert len(set(sample.names)) == 4
        for thing, at, hidden in zip(sample.things, question.position[row], question.hidden[row]):
            assert words[at - 1 : at + 2] == ["a", "[?]" if hidden else thing.colour, thing.noun]
    shown = data.shown(0, ~question.hidden[0], 64)
    spread = (shown.amax(0) - shown.amin(0)) * data.samples[0].drawn(64).masks
    vivid = spread.flatten(1).amax(1) > 0.2
    assert torch.equal(vivid, question.hidden[0])
    assert len(WORDS) == 5 + len(COLOURS) + len(NOUNS)


def test_grey_features_do_not_know_the_colour():
    data = told_once("test", 12)
    assert data.features.shape == (12, 4, 2, 99)
    mean = data.features[..., 96:]  # red, green, blue
    torch.testing.assert_close(mean[:, :, 1].amax(-1), mean[:, :, 1].amin(-1))
    changed = data.recoloured((data.colours + 1) % 6)
    assert torch.equal(changed.colours, (data.colours + 1) % 6)
    assert torch.equal(changed.boxes, data.boxes)
    torch.testing.assert_close(changed.features[:, :, 1], data.features[:, :, 1])
    assert (changed.features - data.features)[:, :, 0, 96:].abs().amax(-1).gt(0.05).all()


def test_photographs_are_dyed_too():
    data = told_once("photographs", 4)
    assert {thing.style for sample in data.samples for thing in sample.things} == {"stamps"}
    assert data.samples[0].things[0].colour == COLOURS[data.colours[0, 0]]
