"""Labels that change places: none stays, all remain, and every exchange is as likely as another."""

from itertools import permutations

import torch
from testing_tools import seeded

from mmlearn.evaluation.shots import shuffled_labels

LABELS = torch.tensor([[7, 3, 7, 9], [2**40, 2**40 + 1, 5, 6], [4, 4, 4, 4]])


def test_no_label_stays_and_all_remain():
    for seed in range(20):
        new = shuffled_labels(LABELS, seeded(seed))
        assert (new[:2] != LABELS[:2]).all()
        assert torch.equal(new[2], LABELS[2])  # there is no other
        assert [sorted(set(row)) for row in new.tolist()] == [sorted(set(row)) for row in LABELS.tolist()]
        assert new[0, 0] == new[0, 2]  # what was called the same still is


def test_each_circle_is_as_likely_as_another():
    """Of four labels there are six circles, and of those that leave none in its place three are none."""
    new = shuffled_labels(torch.arange(4).expand(6000, -1), seeded(0))
    found, counts = new.unique(dim=0, return_counts=True)
    circles = []
    for order in permutations(range(1, 4)):
        circle = [0, *order]
        circles.append([circle[circle.index(one) - 1] for one in range(4)])
    assert sorted(found.tolist()) == sorted(circles)
    assert (counts - 1000).abs().max() < 6 * (6000 * 5 / 36) ** 0.5


def test_chance_comes_from_the_generator_alone_and_goes_on_with_it():
    labels, generator = torch.arange(6).expand(5, -1), seeded(3)
    first, second = shuffled_labels(labels, generator), shuffled_labels(labels, generator)
    assert torch.equal(first, shuffled_labels(labels, seeded(3)))
    assert not torch.equal(first, second)
    assert len(first.unique(dim=0)) > 1  # each row for itself


def test_no_rows_are_no_rows():
    assert shuffled_labels(torch.zeros(0, 3, dtype=torch.long), seeded(0)).shape == (0, 3)
    assert shuffled_labels(torch.zeros(2, 0, dtype=torch.long), seeded(0)).shape == (2, 0)
