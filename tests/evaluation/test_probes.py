"""Probes: perfect on what can be told apart, chance on noise, and equal to slow versions of themselves."""

import pytest
import torch

from mmlearn.evaluation import bag_of_words, linear_probe, zero_shot


def blobs(n, classes=4, d=8, spread=0.1, seed=0):
    """Points around a place of their own for each class, far apart."""
    generator = torch.Generator().manual_seed(seed)
    middle = 3 * torch.eye(d)[:classes]
    label = torch.arange(n) % classes
    return middle[label] + spread * torch.randn(n, d, generator=generator), label


def noise(n, classes=4, d=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator), torch.randint(0, classes, (n,), generator=generator)


def test_what_can_be_told_apart_is():
    assert linear_probe(*blobs(200), *blobs(80, seed=1)) == 1
    label = blobs(80, seed=1)[1]
    assert linear_probe(*blobs(200), blobs(80, seed=1)[0], (label + 1) % 4) == 0


def test_noise_gives_chance():
    accuracy = linear_probe(*noise(800), *noise(800, seed=1))
    assert abs(accuracy - 0.25) < 4 * (0.25 * 0.75 / 800) ** 0.5


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
