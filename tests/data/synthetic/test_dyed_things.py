"""One dyed thing a picture: what is held out is never seen, and the pictures are those of their names."""

import torch
from testing_tools import refused

from mmlearn.data.synthetic.cutouts import COLOURS, DYED
from mmlearn.data.synthetic.dyed_things import AWAY, HELD_OUT, SIDES, dyed_things, every_pair


def pairs(split):
    return {(thing.colour, thing.noun) for thing in dyed_things(split, 150).things}


def test_what_is_held_out_is_in_no_training_picture():
    held = {(colour, noun) for noun, colour in HELD_OUT.items()}
    assert set(HELD_OUT) == set(DYED)
    assert set(HELD_OUT.values()) == set(COLOURS)  # each colour lacks a noun, and each noun a colour
    assert not pairs("train") & held
    assert not pairs("test") & held
    assert pairs("held-out") == held
    assert pairs("all") & held
    assert pairs("all") <= set(every_pair())


def test_pictures_are_light_and_the_same_every_time():
    one, again, other = dyed_things("train", 20), dyed_things("train", 20), dyed_things("train", 20, seed=1)
    assert one.images.shape == (20, 3, 32, 32)
    assert torch.equal(one.images, again.images)
    assert one.things != other.things
    assert one.images.median() > 0.7
    assert one.captions[0] == f"a {COLOURS[one.colours[0]]} {DYED[one.nouns[0]]}"
    refused("There is no split 'tests'; did you mean 'test'", dyed_things, "tests", 1)


def test_things_vary_a_little_about_the_middle():
    made = dyed_things("train", 200)
    sides = torch.tensor([thing.side for thing in made.things])
    away = torch.tensor([thing.centre for thing in made.things]) - 0.5
    assert SIDES[0] <= sides.min() < sides.max() <= SIDES[1]
    assert away.abs().max() <= AWAY
    assert (away.amin(0) < -AWAY / 2).all()  # left and up
    assert (away.amax(0) > AWAY / 2).all()  # right and down
    assert {thing.mirrored for thing in made.things} == {True, False}
    assert len({thing.style for thing in made.things}) == 3
