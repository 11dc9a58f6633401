"""InfoNCE of some rows at a time: the same numbers and gradients, and no matrix of the whole batch."""

import math

import pytest
import torch
import torch.nn.functional as F
from testing_tools import refused

from mmlearn.objectives import info_nce
from mmlearn.objectives.large_batch import accumulated_info_nce, chunked_info_nce, local_info_nce
from mmlearn.training.counting import Live


def pairs(b=12, d=6):
    """Images, texts and a scale, in float64, of which all are learned."""
    drawn = [F.normalize(torch.randn(b, d, dtype=torch.float64), dim=-1) for _ in range(2)]
    return [x.requires_grad_() for x in (*drawn, torch.tensor(5.0, dtype=torch.float64))]


def same(got, wanted, leaves):
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=1e-12)
    for one, other in zip(torch.autograd.grad(got, leaves), torch.autograd.grad(wanted, leaves)):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("size", [1, 4, 5, 12, 40])
def test_chunks_have_the_loss_and_the_gradients_of_the_whole(size):
    given = pairs()
    same(chunked_info_nce(*given, size), info_nce(*given), given)


def test_the_mean_of_local_losses_is_the_loss_of_the_whole():
    images, texts, scale = given = pairs()
    parts = [slice(first, first + 4) for first in (0, 4, 8)]
    local = [local_info_nce(images[own], texts[own], images, texts, scale, own.start) for own in parts]
    same(torch.stack(local).mean(), info_nce(*given), given)


def test_accumulated_parts_have_fewer_wrong_answers():
    images, texts, scale = given = pairs()
    same(accumulated_info_nce(*given, 1), info_nce(*given), given)
    by_hand = (info_nce(images[:6], texts[:6], scale) + info_nce(images[6:], texts[6:], scale)) / 2
    same(accumulated_info_nce(*given, 2), by_hand, given)
    nothing = torch.ones(12, 1)
    assert accumulated_info_nce(nothing, nothing, torch.tensor(2.0), 3).item() == pytest.approx(math.log(4))
    assert abs(accumulated_info_nce(*given, 2) - info_nce(*given)) > 0.1


def test_chunks_never_hold_the_logits_of_all():
    images, texts, scale = (x.detach().float().requires_grad_() for x in pairs(256, 4))
    most = {}
    for name, loss in (("whole", info_nce), ("chunks", lambda *given: chunked_info_nce(*given, 8))):
        with Live() as live:
            loss(images, texts, scale).backward()
        most[name] = live.most / (4 * 256**2)
    assert most["whole"] > 3  # logits, and their softmax in both directions
    assert most["chunks"] < 0.25


def test_what_cannot_be_is_refused():
    images, texts, scale = pairs()
    refused(
        "12 pairs cannot be cut into 5 equal parts; take a divisor of 12", accumulated_info_nce, images, texts, scale, 5
    )
    refused("A chunk has at least one row, got 0", chunked_info_nce, images, texts, scale, 0)
    refused("4 rows from row 9 on are no part of 12", local_info_nce, images[:4], texts[:4], images, texts, scale, 9)
