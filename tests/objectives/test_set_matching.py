"""Set matching: the cheapest of all assignments, and losses that do not depend on the order of objects or padding."""

from itertools import permutations

import pytest
import torch
from testing_tools import close, refused

from mmlearn.objectives.boxes import corners_to_centers
from mmlearn.objectives.set_matching import Weights, hungarian, matching_cost, set_losses, set_losses_of_blocks


@pytest.fixture
def scene():
    """Logits and boxes of 6 queries, and up to 4 objects of 5 classes, for 3 pictures."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 6, 6, generator=generator)
    guesses = 0.1 + 0.3 * torch.rand(3, 6, 4, generator=generator)
    corner = torch.rand(3, 4, 2, generator=generator) * 0.5
    boxes = torch.cat([corner, corner + 0.1 + 0.4 * torch.rand(3, 4, 2, generator=generator)], -1)
    classes = torch.randint(5, (3, 4), generator=generator)
    return logits, guesses, classes, boxes, torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]]).bool()


def test_no_other_assignment_is_cheaper(scene):
    *parts, real = scene
    cost = matching_cost(*parts)
    found = hungarian(cost, real)
    assert torch.equal(found >= 0, real)
    for image in range(3):
        objects = real[image].nonzero()[:, 0].tolist()
        least = min(
            sum(cost[image, guess, thing].item() for guess, thing in zip(order, objects))
            for order in permutations(range(6), len(objects))
        )
        assert sum(cost[image, found[image, thing], thing].item() for thing in objects) == pytest.approx(least)


def test_losses_are_those_of_the_set(scene):
    logits, guesses, classes, boxes, real = scene
    whole = set_losses(*scene)
    order = torch.tensor([2, 0, 3, 1])
    for name, value in set_losses(logits, guesses, classes[:, order], boxes[:, order], real[:, order]).items():
        close(value, whole[name], 1e-6)
    spoilt = torch.where(real[..., None], boxes, torch.nan)
    other = set_losses(logits, guesses, torch.where(real, classes, 4), spoilt, real)
    assert all(torch.equal(other[name], whole[name]) for name in whole)
    empty = set_losses(logits, guesses, classes, boxes, real & False)
    assert empty["l1"] == empty["giou"] == 0
    close(empty["classes"], -logits.log_softmax(-1)[..., -1].mean(), 1e-6)


def test_perfect_guesses_cost_nothing_and_weights_count(scene):
    _, _, classes, boxes, real = scene
    guesses = torch.cat([corners_to_centers(boxes), torch.full((3, 2, 4), 0.5)], 1)
    right = torch.where(real, classes, 5)
    logits = 60.0 * torch.nn.functional.one_hot(torch.cat([right, torch.full((3, 2), 5)], 1), 6)
    assert all(value < 1e-5 for value in set_losses(logits, guesses, classes, boxes, real).values())
    one, two = (set_losses(*scene, Weights(*w)) for w in ((1, 5, 2, 0.1), (2, 10, 4, 0.1)))
    for name, value in one.items():
        close(two[name], 2 * value, 1e-5)


def test_blocks_are_matched_together_as_each_alone(scene):
    logits, guesses, *objects = scene
    blocks = [(logits, guesses), (logits.flip(1), guesses.roll(1, 1)), (2 * logits, guesses.flip(0))]
    alone = [set_losses(*block, *objects) for block in blocks]
    for name, value in set_losses_of_blocks(blocks, *objects).items():
        close(value, sum(losses[name] for losses in alone), 1e-5)


def test_more_objects_than_queries_are_told():
    cost = torch.rand(1, 2, 3)
    refused("Picture 0 of the batch has 3 objects, more than the 2 queries", hungarian, cost, torch.ones(1, 3).bool())
