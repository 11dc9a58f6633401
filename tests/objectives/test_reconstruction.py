"""The L1 of masked frames reads those frames and no other."""

import pytest
import torch

from mmlearn.objectives import masked_l1


def test_it_is_the_mean_over_masked_frames_and_features():
    prediction, target = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    mask = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 0, 1]]).bool()
    terms = [abs(prediction[i, t, k] - target[i, t, k]).item() for i, t in [(0, 0), (0, 2), (1, 4)] for k in range(3)]
    assert masked_l1(prediction, target, mask).item() == pytest.approx(sum(terms) / 9)


def test_other_frames_change_nothing_even_if_they_are_no_numbers():
    prediction, target = torch.randn(2, 5, 3, requires_grad=True), torch.randn(2, 5, 3)
    mask = torch.arange(5).expand(2, 5) < 3
    expected = masked_l1(prediction, target, mask)
    broken = target.masked_fill(~mask[..., None], torch.nan)
    loss = masked_l1(prediction, broken, mask)
    loss.backward()
    assert torch.equal(loss, expected)
    assert (prediction.grad[~mask] == 0).all()
    assert (prediction.grad[mask] != 0).all()


def test_no_frame_costs_nothing_and_has_a_gradient():
    prediction = torch.randn(2, 5, 3, requires_grad=True)
    loss = masked_l1(prediction, torch.randn(2, 5, 3), torch.zeros(2, 5, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert (prediction.grad == 0).all()
