"""Dropped tokens: rate 0 is the whole, rows lose the same share of what is real, in order, by the generator."""

import math

import pytest
import torch
from testing_tools import close, refused, seeded

from mmlearn.models.trimodal.drop_token import drop_tokens, masked_max


def numbered_tokens(b=3, n=10):
    """Token j of row i is (i, j)."""
    return torch.stack(torch.meshgrid(torch.arange(b), torch.arange(n), indexing="ij"), dim=-1).float()


def test_rate_0_gives_back_what_came_and_draws_nothing():
    x, mask = numbered_tokens(), torch.arange(10) < torch.tensor([[10], [4], [0]])
    generator = seeded()
    kept = drop_tokens(x, mask, 0.0, generator)
    assert torch.equal(kept.tokens, x)
    assert torch.equal(kept.mask, mask)
    assert torch.equal(kept.position, torch.arange(10).expand(3, 10))
    assert torch.equal(generator.get_state(), seeded().get_state())
    assert drop_tokens(x, None, 0.0, generator).mask.all()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.7, 0.99])
@pytest.mark.parametrize("seed", range(3))
def test_each_row_keeps_the_same_share_of_what_is_real(rate, seed):
    lengths = torch.tensor([[10], [7], [4], [1], [0]])
    mask = torch.arange(10) < lengths
    x = numbered_tokens(5)
    kept = drop_tokens(x, mask, rate, seeded(seed))
    share = [math.ceil(round(int(length) * (1 - rate), 6)) for length in lengths]
    assert kept.mask.sum(1).tolist() == share
    assert kept.tokens.shape[1] == share[0]
    assert torch.equal(kept.mask, torch.arange(share[0]) < torch.tensor(share)[:, None])  # what is real comes first
    for row, (tokens, real, position) in enumerate(zip(*kept)):
        assert (tokens[:, 0] == row).all()
        assert torch.equal(tokens[:, 1], position.float())
        assert mask[row, position[real]].all()
        assert (position[real].diff() > 0).all()  # in order, none twice
        assert len(position.unique()) == len(position)


def test_tokens_are_real_wherever_the_mask_says():
    mask = torch.tensor([[False, True, False, True, True, False, True, True]])
    kept = drop_tokens(numbered_tokens(1, 8), mask, 0.5, seeded())
    assert mask[0, kept.position[0][kept.mask[0]]].all()
    assert kept.mask.sum() == 3


def test_every_token_is_kept_as_often_as_any_other():
    generator, counts = seeded(), torch.zeros(8)
    for _ in range(400):
        position = drop_tokens(numbered_tokens(4, 8), None, 0.75, generator).position
        counts += position.flatten().bincount(minlength=8)
    close(counts / counts.sum(), torch.full((8,), 1 / 8), 0.02)


def test_chance_is_the_generators():
    def position(seed):
        return drop_tokens(numbered_tokens(2, 50), None, 0.5, seeded(seed)).position

    assert torch.equal(position(0), position(0))
    assert not torch.equal(position(0), position(1))
    assert not torch.equal(*position(0))  # rows draw on their own


def test_gradients_reach_what_is_kept_only():
    x = torch.randn(2, 6, 3, requires_grad=True)
    kept = drop_tokens(x, None, 0.5, seeded())
    kept.tokens.sum().backward()
    touched = torch.zeros(2, 6).scatter(1, kept.position, 1)
    assert torch.equal(x.grad, touched[..., None].expand_as(x))


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2.0])
def test_a_rate_that_cannot_be(rate):
    refused(f"at least 0 and below 1, got {rate}", drop_tokens, numbered_tokens(), None, rate, seeded())


def test_maximum_of_what_is_real():
    x = torch.randn(3, 5, 4, requires_grad=True)
    mask = torch.arange(5) < torch.tensor([[5], [2], [0]])
    largest = masked_max(x, mask)
    close(largest[0], x[0].amax(0))
    close(largest[1], x[1, :2].amax(0))
    assert (largest[2] == 0).all()
    close(masked_max(x), x.amax(1))
    largest.sum().backward()
    assert x.grad.isfinite().all()
    assert (x.grad[~mask] == 0).all()
