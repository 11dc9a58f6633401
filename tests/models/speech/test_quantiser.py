"""Product quantisation: choices are entries, noise makes them samples, and gradients pass straight through."""

import pytest
import torch
from testing_tools import close, refused, seeded

from mmlearn.layers.gumbel import gumbel_noise
from mmlearn.models.speech.quantiser import ProductQuantiser


def test_vectors_are_entries_side_by_side():
    quantiser, x = ProductQuantiser(5, 2, 7, 6), torch.randn(3, 4, 5)
    noise = gumbel_noise((3, 4, 2, 7), generator=seeded())
    for quantised in (quantiser(x), quantiser(x, noise, 0.7)):
        for vector, codes in zip(quantised.vectors.flatten(0, 1), quantised.codes.flatten(0, 1)):
            assert torch.equal(vector, torch.cat([quantiser.entries[codes[0]], quantiser.entries[7 + codes[1]]]))
    assert quantiser(x).codes.shape == (3, 4, 2)


def test_without_noise_the_likeliest_entry_is_chosen():
    quantiser, x = ProductQuantiser(5, 2, 7, 6), torch.randn(40, 5)
    logits = quantiser.logits(x).view(40, 2, 7)
    quantised = quantiser(x)
    assert torch.equal(quantised.codes, logits.argmax(-1))
    assert torch.equal(quantised.probability.argmax(-1), quantised.codes)
    assert (quantised.probability.sum(-1) == 1).all()
    assert not quantised.probability.requires_grad
    quantised.vectors.sum().backward()
    assert quantiser.logits.weight.grad is None
    assert (quantiser.entries.grad != 0).any()


def test_with_noise_probabilities_are_those_of_the_logits_alone():
    quantiser, x = ProductQuantiser(5, 2, 7, 6), torch.randn(40, 5)
    noise = gumbel_noise((40, 2, 7), generator=seeded())
    quantised = quantiser(x, noise, 0.3)
    close(quantised.probability, quantiser.logits(x).view(40, 2, 7).softmax(-1))
    assert torch.equal(quantised.codes, (quantiser.logits(x).view(40, 2, 7) + noise).argmax(-1))
    assert not torch.equal(quantised.codes, quantiser(x).codes)


def test_entries_start_between_0_and_1_and_logits_spread():
    """As in the official code."""
    quantiser = ProductQuantiser(64, 2, 320, 256)
    assert quantiser.entries.shape == (640, 128)
    assert 0 <= quantiser.entries.min() < 0.01
    assert 0.99 < quantiser.entries.max() <= 1
    assert quantiser.logits.weight.std().item() == pytest.approx(1, abs=0.02)
    assert (quantiser.logits.bias == 0).all()
    refused("width 7 is no multiple of the 2 codebooks, which share it", ProductQuantiser, 5, 2, 7, 7)
