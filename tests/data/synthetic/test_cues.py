"""Cues: bits can be read as well as theory says and no better, and labels follow from bits."""

from collections import Counter

import pytest
import torch
from testing_tools import refused

from mmlearn.data import fetch, load
from mmlearn.data.synthetic.cues import KINDS, STRENGTH, Cues, best_accuracy, directions

MANY = range(20_000)


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    samples = fetch(Cues("train", kind=request.param), MANY)
    return request.param, samples, torch.stack([sample.cues for sample in samples])


def test_labels_follow_from_bits_and_all_bits_occur(kind):
    name, samples, _ = kind
    rule = {"redundant": lambda a, b: a, "unique": lambda a, b: a, "xor": lambda a, b: int(a != b)}[name]
    assert all(sample.label == rule(*sample.bits) for sample in samples)
    counted = Counter(sample.bits for sample in samples)
    assert set(counted) == ({(0, 0), (1, 1)} if name == "redundant" else {(a, b) for a in (0, 1) for b in (0, 1)})
    assert max(counted.values()) < 1.1 * min(counted.values())


def test_vectors_are_normal_around_their_bits(kind):
    _, samples, cues = kind
    signs = 2 * torch.tensor([sample.bits for sample in samples]) - 1
    noise = cues - STRENGTH * signs[..., None] * directions(16)
    flat = noise.flatten(1)
    assert flat.mean(0).abs().max() < 0.03
    assert (torch.cov(flat.T) - torch.eye(32)).abs().max() < 0.05


def test_who_knows_the_directions_is_as_good_as_theory_says(kind):
    """The rule that is best by Bayes, worked out here for each kind."""
    name, samples, cues = kind
    label = torch.tensor([sample.label for sample in samples])
    first, second = (cues * directions(16)).sum(-1).unbind(1)
    best = {"redundant": first + second > 0, "unique": first > 0, "xor": (first > 0) != (second > 0)}[name]
    found = (best == label.bool()).float().mean().item()
    assert found == pytest.approx(best_accuracy(name), abs=0.003)
    for modality, told in enumerate((first > 0, second > 0)):
        alone = (told == label.bool()).float().mean().item()
        assert alone == pytest.approx(best_accuracy(name, modality=modality), abs=0.015)


def test_a_sample_is_a_function_of_its_number():
    data = Cues("val", seed=3)
    assert torch.equal(data[7].cues, fetch(data, [3, 7])[1].cues)
    for other in (Cues("val", seed=4), Cues("test", seed=3)):
        assert not torch.equal(data[7].cues, other[7].cues)
    assert data[0].caption == "the first says {}, the second says {}: {}".format(
        *(("no", "yes")[bit] for bit in (*data[0].bits, data[0].label))
    )


def test_a_missing_modality_is_zeros_and_never_both():
    samples = fetch(Cues(missing=0.6), range(5000))
    mask = torch.stack([sample.cue_mask for sample in samples])
    assert mask.any(1).all()
    assert (~mask).float().mean(0).tolist() == pytest.approx([0.3, 0.3], abs=0.02)
    assert all(not sample.cues[~sample.cue_mask].any() and sample.cues[sample.cue_mask].any() for sample in samples)
    whole = fetch(Cues(), range(50))
    assert all(sample.cue_mask.all() for sample in whole)
    for one, other in zip(whole, samples):  # what is there is as it was
        assert torch.equal(one.cues[other.cue_mask], other.cues[other.cue_mask])


def test_wrong_options_are_told(unchecked):
    refused("no split 'dev'; choose from train", Cues, "dev")
    refused("no kind 'xnor'; did you mean 'xor'", load, "cues", kind="xnor")
    refused("no kind 'and'", best_accuracy, "and")
    for options in ({"strength": -1.0}, {"features": 0}, {"missing": 1.5}):
        refused("strength is at least 0", Cues, **options)
    refused("length must be at least 1, got 0", Cues, length=0)
    with pytest.raises(IndexError, match="numbered from 0"):
        Cues()[-1]
