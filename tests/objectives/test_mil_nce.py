"""MIL-NCE: as the equation says, one candidate is NCE, what does not exist counts for nothing."""

import math

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close, refused

from mmlearn.objectives import info_nce, mil_nce


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def written_out(video, text, scale, exists, positives):
    """Equations 1 and 2 of Miech et al., pair by pair, in double precision."""
    video, text, total, rows = video.double(), text.double(), 0, 0
    b, candidates = exists.shape

    def exp(i, j, k):
        return math.exp(scale * float(video[i] @ text[j, k]))

    for i in range(b):
        fitting = negative = 0
        for j in range(b):
            for k in range(candidates):
                if exists[j, k] and positives[i, j]:
                    fitting += exp(i, j, k)
                elif exists[j, k]:
                    negative += exp(i, j, k)
                if exists[i, k] and not positives[j, i]:
                    negative += exp(j, i, k)
        if fitting:
            total, rows = total - math.log(fitting / (fitting + negative)), rows + 1
    return total / max(rows, 1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [1.0, 14.0])
def test_against_the_equation(seed, scale):
    video, text = unit(6, 8, seed=seed), unit(6, 3, 8, seed=seed + 10)
    generator = torch.Generator().manual_seed(seed)
    exists = torch.rand(6, 3, generator=generator) < 0.6
    exists[2] = False
    kind = torch.tensor([0, 1, 0, 2, 3, 1])
    own = torch.eye(6, dtype=torch.bool)
    for mask in (torch.ones_like(exists), exists):
        for positives in (own, kind[:, None] == kind):
            got = mil_nce(video, text, torch.tensor(scale), mask, positives)
            assert got.item() == pytest.approx(written_out(video, text, scale, mask, positives), abs=1e-5)
    close(mil_nce(video, text, torch.tensor(scale)), mil_nce(video, text, torch.tensor(scale), exists | True, own))


def test_the_official_codes_count_what_fits_twice():
    """Once as the texts of a video, once as the videos of its texts. Without the second time their loss is ours.

    Source: https://github.com/antoine77340/MIL-NCE_HowTo100M, loss.py; VATT's vatt/utils/train/objectives.py.
    """
    video, text, scale = unit(6, 8), unit(6, 3, 8, seed=1), torch.tensor(7.0)
    scores = scale * (video @ text.flatten(0, 1).T).view(6, 6, 3)
    own = torch.eye(6, dtype=torch.bool)
    fits = scores[own].logsumexp(1)
    of_its_texts = scores.transpose(0, 1)
    twice = torch.cat([scores, of_its_texts], dim=1).flatten(1).logsumexp(1) - fits
    hidden = of_its_texts.masked_fill(own[..., None], -torch.inf)
    once = torch.cat([scores, hidden], dim=1).flatten(1).logsumexp(1) - fits
    close(mil_nce(video, text, scale), once.mean())
    close(twice, (once.exp() + 1).log())
    same = torch.ones(6, 8) / 8**0.5
    assert mil_nce(same, same[:, None].repeat(1, 3, 1), scale).item() == pytest.approx(math.log(11), abs=1e-5)


def test_one_candidate_is_nce():
    """Equation 4 of VATT: the pair against all pairs of its row and of its column."""
    video, text, scale = unit(5, 8), unit(5, 8, seed=1), torch.tensor(9.0)
    logits = scale * video @ text.T
    others = logits.masked_fill(torch.eye(5, dtype=torch.bool), -torch.inf)
    every = torch.cat([logits.diagonal()[:, None], others, others.T], dim=1)
    nce = F.cross_entropy(every, torch.zeros(5, dtype=torch.long))
    close(mil_nce(video, text[:, None], scale), nce)
    assert nce > info_nce(video, text, scale)  # which has each half of the negatives in a softmax of its own


def test_what_knows_nothing_costs_the_logarithm_of_all_pairs():
    same = unit(1, 8).expand(7, 8)
    for candidates in (1, 4):
        text = same[:, None].expand(7, candidates, 8)
        assert mil_nce(same, text, torch.tensor(5.0)).item() == pytest.approx(math.log(2 * 7 - 1), abs=1e-5)


def test_one_near_candidate_is_enough():
    video = torch.eye(4, 8)
    text = torch.stack([video, unit(4, 8)], dim=1)
    near = mil_nce(video, text, torch.tensor(30.0))
    assert near < 0.01
    assert mil_nce(video, text[:, 1:], torch.tensor(30.0)) > 1
    close(mil_nce(video, text.flip(1), torch.tensor(30.0)), near)


def test_candidates_that_do_not_exist_count_for_nothing():
    video, text, scale = unit(4, 8), unit(4, 2, 8), torch.tensor(20.0)
    exists = torch.tensor([[True, False], [True, True], [False, True], [False, False]])
    before = mil_nce(video, text, scale, exists)
    other = torch.where(exists[..., None], text, unit(4, 2, 8, seed=5))
    assert torch.equal(mil_nce(video, other, scale, exists), before)
    text = text.clone().requires_grad_()
    mil_nce(video, text, scale, exists).backward()
    assert (text.grad[~exists] == 0).all()
    assert (text.grad[exists] != 0).any(-1).all()


@pytest.mark.parametrize("mask", [[True] * 3, [False, True, True], [False] * 3])
def test_gradients_are_finite(mask):
    video, text = unit(3, 8).requires_grad_(), unit(3, 2, 8).requires_grad_()
    loss = mil_nce(video, text, torch.tensor(100.0), torch.tensor(mask)[:, None].expand(3, 2))
    loss.backward()
    assert loss.isfinite()
    assert video.grad.isfinite().all()
    assert text.grad.isfinite().all()
    assert (loss == 0) == (not any(mask))


def test_one_row_has_nothing_to_choose_from():
    assert mil_nce(unit(1, 8), unit(1, 3, 8), torch.tensor(10.0)).item() == 0


def test_rows_must_pair_up(unchecked):
    refused("got 3 images and 2 texts", mil_nce, unit(3, 8), unit(2, 1, 8), torch.tensor(1.0))
    refused("at least one", mil_nce, unit(0, 8), unit(0, 1, 8), torch.tensor(1.0))
