"""Pictures of one thing with its name: what is held out is held out, and neighbours differ."""

import pytest
import torch

from mmlearn.data.synthetic.cutouts import COLOURS, DYED
from mmlearn.data.synthetic.lone_things import STYLES, held_out_name, lone_things


@pytest.mark.parametrize("split", STYLES)
def test_a_sample_shows_one_thing_and_is_called_as_it_is(split):
    samples = lone_things(split, 40)
    assert [s.caption for s in samples] == [s.things[0].name for s in samples]
    assert all(len(s.things) == 1 and s.image.shape == (3, 64, 64) for s in samples)
    names = [s.caption for s in samples]
    assert all(one != other for one, other in zip(names, names[1:] + names[:1]))
    assert all(held_out_name(s.things[0]) == (split == "unseen-name") for s in samples)
    assert {s.things[0].style for s in samples} <= set(STYLES[split])


def test_the_last_and_the_first_are_neighbours():
    for seed in range(30):  # of seven names
        first, *_, last = lone_things("unseen-name", 3, seed=seed)
        assert first.caption != last.caption


def test_one_colour_of_each_dyed_noun_is_held_out():
    names = {s.caption for s in lone_things("unseen-name", 100)}
    assert names == {f"{COLOURS[k % len(COLOURS)]} {noun}" for k, noun in enumerate(DYED)}
    seen = {word for s in lone_things("train", 600) for word in s.caption.split()}
    assert {word for name in names for word in name.split()} <= seen


def test_samples_are_a_function_of_split_and_seed():
    one, again, other = (lone_things("train", 3, seed=seed, size=32) for seed in (1, 1, 2))
    assert all(torch.equal(a.image, b.image) for a, b in zip(one, again))
    assert [s.things for s in one] != [s.things for s in other]
    assert [s.things for s in one] != [s.things for s in lone_things("test", 3, seed=1)]
    with pytest.raises(ValueError, match="no split 'validation'"):
        lone_things("validation", 3)
