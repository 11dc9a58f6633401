"""Probes: perfect on what can be told apart, chance on noise, and equal to slow versions of themselves."""

import math
from collections import defaultdict

import pytest
import torch
from testing_tools import refused

from mmlearn.evaluation import (
    angle_errors,
    bag_of_words,
    leave_one_out_prediction,
    linear_probe,
    nearest_neighbours,
    zero_shot,
)


def blobs(n, classes=4, d=8, spread=0.1, seed=0):
    """Points around a place of their own for each class, far apart."""
    generator = torch.Generator().manual_seed(seed)
    middle = 3 * torch.eye(d)[:classes]
    label = torch.arange(n) % classes
    return middle[label] + spread * torch.randn(n, d, generator=generator), label


def noise(n, classes=4, d=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator), torch.randint(0, classes, (n,), generator=generator)


@pytest.mark.parametrize("probe", [nearest_neighbours, linear_probe])
def test_what_can_be_told_apart_is(probe):
    assert probe(*blobs(200), *blobs(80, seed=1)) == 1
    label = blobs(80, seed=1)[1]
    assert probe(*blobs(200), blobs(80, seed=1)[0], (label + 1) % 4) == 0


@pytest.mark.parametrize("probe", [nearest_neighbours, linear_probe])
def test_noise_gives_chance(probe):
    accuracy = probe(*noise(800), *noise(800, seed=1))
    assert abs(accuracy - 0.25) < 4 * (0.25 * 0.75 / 800) ** 0.5


def test_what_is_linear_needs_the_linear_probe_and_what_is_not_the_neighbours():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1200, 20, generator=generator)
    faint = (x[:, 0] > 0).long()  # one direction of twenty
    half = slice(0, 600), slice(600, 1200)
    linear, near = (
        probe(x[half[0]], faint[half[0]], x[half[1]], faint[half[1]]) for probe in (linear_probe, nearest_neighbours)
    )
    assert linear > 0.95
    assert linear > near + 0.05
    plane = torch.nn.functional.normalize(torch.randn(1200, 2, generator=generator), dim=-1)
    opposite = (plane.prod(1) > 0).long()  # quadrants that face each other
    linear, near = (
        probe(plane[half[0]], opposite[half[0]], plane[half[1]], opposite[half[1]])
        for probe in (linear_probe, nearest_neighbours)
    )
    assert near > 0.95
    assert linear < 0.8  # a line gets three of four quadrants at best


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (5, 1.0), (1000, 0.5)])
def test_neighbours_vote_by_their_cosine(k, temperature):
    (train, label), (test, wanted) = noise(60, d=3), noise(40, d=3, seed=1)
    right = 0
    for point, answer in zip(test.double(), wanted.tolist()):
        cosine = [float(point @ other / point.norm() / other.norm()) for other in train.double()]
        votes = defaultdict(float)
        for i in sorted(range(60), key=lambda i: -cosine[i])[:k]:
            votes[int(label[i])] += math.exp(cosine[i] / temperature)
        right += max(votes, key=votes.get) == answer
    got = nearest_neighbours(train, label, test, wanted, k=k, temperature=temperature)
    assert got == pytest.approx(right / 40)


def test_lengths_do_not_matter_to_neighbours():
    (train, label), (test, wanted) = noise(60), noise(40, seed=1)
    scale = torch.rand(60, 1) * 100 + 0.01
    assert nearest_neighbours(train * scale, label, test * 7, wanted) == nearest_neighbours(train, label, test, wanted)


def test_scales_do_not_matter_to_the_linear_probe():
    """Features are standardised, by what was trained on."""
    (train, label), (test, wanted) = blobs(200, spread=1.5), blobs(200, spread=1.5, seed=1)
    scale, shift = torch.logspace(-3, 3, 8), torch.linspace(-5, 5, 8)
    plain = linear_probe(train, label, test, wanted)
    assert 0.5 < plain < 1
    assert abs(linear_probe(train * scale + shift * scale, label, test * scale + shift * scale, wanted) - plain) < 0.011
    constant = torch.cat([train, torch.ones(200, 1)], 1), torch.cat([test, torch.ones(200, 1)], 1)
    assert abs(linear_probe(constant[0], label, constant[1], wanted) - plain) < 0.011


def test_the_penalty_holds_the_weights_down():
    """With a heavy penalty the bias decides: the most frequent class is always said."""
    train, _ = noise(100)
    label = (torch.arange(100) < 70).long()
    assert linear_probe(train, label, train, label, penalty=1e4) == pytest.approx(0.7)
    assert linear_probe(train, label, train, label, penalty=0) > 0.7


def test_the_linear_probe_neither_uses_nor_changes_the_global_state():
    (train, label), (test, wanted) = blobs(100, spread=2), blobs(100, spread=2, seed=1)
    got = set()
    for seed in range(3):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        got.add(linear_probe(train, label, test, wanted, iterations=1))
        assert torch.equal(torch.get_rng_state(), state)
    assert len(got) == 1


def test_a_class_that_only_the_test_has_counts_as_wrong():
    train, label = blobs(100, classes=3)
    test, wanted = blobs(80, classes=4, seed=1)
    assert linear_probe(train, label, test, wanted) == pytest.approx(0.75)
    assert nearest_neighbours(train, label, test, wanted) == pytest.approx(0.75)


def test_zero_shot_says_the_nearest_class():
    names = torch.eye(4, 8)
    image, label = blobs(40)
    assert zero_shot(image, names, label) == 1
    assert zero_shot(image, names.roll(1, 0), label) == 0
    assert zero_shot(image, names, torch.where(torch.arange(40) < 10, (label + 1) % 4, label)) == 0.75


def test_a_bag_of_words_counts_what_is_real_and_not_special():
    tokens = torch.tensor([[1, 5, 4, 5, 2, 0], [1, 6, 2, 0, 0, 0]])
    bag = bag_of_words(tokens, tokens > 0, 8)
    assert bag.tolist() == [[1, 2, 0, 0], [0, 0, 1, 0]]
    other = tokens[:1, [0, 3, 2, 1, 4, 5]]
    assert torch.equal(bag_of_words(other, other > 0, 8), bag[:1])
    assert bag_of_words(tokens, tokens > 0, 8, special=0)[0].tolist() == [0, 1, 1, 0, 1, 2, 0, 0]


def test_each_row_is_predicted_from_the_others_by_ridge_regression():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(7, width, generator=generator, dtype=torch.float64) for width in (4, 2))
    weights = leave_one_out_prediction(x, penalty=0.5)
    assert (weights.diagonal() == 0).all()
    for i in range(7):
        others = [j for j in range(7) if j != i]
        known, target = x[others] - x[others].mean(0), y[others]
        strength = 0.5 * known.square().sum(1).mean()
        solved = torch.linalg.solve(known.T @ known + strength * torch.eye(4), known.T @ target)  # in the features
        torch.testing.assert_close(weights[i] @ y, (x[i] - x[others].mean(0)) @ solved)


def test_what_is_linear_is_found_and_what_is_left_out_is_not_seen():
    angle = torch.arange(12) * 2 * math.pi / 12
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    seen = circle @ torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    assert angle_errors(leave_one_out_prediction(seen, 1e-3) @ circle, circle).max() < 2
    other = circle.clone()
    other[3] = -other[3]
    assert torch.equal((leave_one_out_prediction(seen) @ other)[3], (leave_one_out_prediction(seen) @ circle)[3])
    refused("three or more; got 2", leave_one_out_prediction, seen[:2])


def test_angles_are_in_degrees_whatever_the_length():
    said = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [1.0, 1.0]])
    assert angle_errors(said, torch.tensor([1.0, 0.0]).expand(4, 2)).tolist() == pytest.approx(
        [0, 90, 180, 45], abs=1e-3
    )
