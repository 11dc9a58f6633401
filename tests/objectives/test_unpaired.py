"""Gradient masks are complementary, ownership only shrinks, and a teacher that agrees costs nothing."""

import pytest
import torch
from testing_tools import close

from mmlearn.objectives.unpaired import complementary, keep_largest, masked_divergence, own_gradient


def test_two_complementary_masks_share_the_gradient():
    weight, mask = torch.randn(4, 5, requires_grad=True), torch.rand(4, 5) < 0.5
    text, image = (lambda w: (w**3).sum()), (lambda w: w.exp().sum())
    (text(own_gradient(weight, mask)) + image(own_gradient(weight, ~mask))).backward()
    close(weight.grad, torch.where(mask, 3 * weight**2, weight.exp()).detach())
    assert torch.equal(own_gradient(weight, mask), weight)
    assert complementary(mask, ~mask)
    assert not complementary(mask, mask)


def test_the_largest_stay_and_nothing_comes_back():
    weight = torch.tensor([[0.1, -5.0, 2.0], [3.0, -0.2, 0.0]])
    owned = keep_largest(weight, torch.ones(2, 3, dtype=torch.bool), 0.5)
    assert owned.tolist() == [[False, True, True], [True, False, False]]
    later = keep_largest(weight.flip(0), owned, 1 / 3)
    assert (later <= owned).all()
    assert later.sum() == 2
    assert torch.equal(keep_largest(weight, owned, 1.0), owned)
    assert not keep_largest(weight, owned, 0.0).any()


def test_a_teacher_that_agrees_costs_nothing_and_gets_no_gradient():
    logits, masked = torch.randn(2, 3, 4, requires_grad=True), torch.tensor([[True, False, True]] * 2)
    teacher = torch.randn(2, 3, 4, requires_grad=True)
    close(masked_divergence(logits, logits, masked), torch.tensor(0.0))
    found = masked_divergence(logits, teacher, masked, 2.0)
    said, wanted = (logits / 2).log_softmax(-1)[masked], (teacher / 2).softmax(-1)[masked]
    close(found, 4 * torch.nn.functional.kl_div(said, wanted, reduction="batchmean"))
    found.backward()
    assert teacher.grad is None
    assert (logits.grad[~masked] == 0).all()
    assert masked_divergence(logits, teacher, torch.zeros_like(masked)) == 0


def test_what_cannot_be_is_told():
    with pytest.raises(ValueError, match="A share is from 0 to 1"):
        keep_largest(torch.ones(2), torch.ones(2, dtype=torch.bool), 1.5)
    with pytest.raises(ValueError, match="temperature is above 0"):
        masked_divergence(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.bool), 0.0)
