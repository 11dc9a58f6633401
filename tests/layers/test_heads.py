"""A head that starts small says about the same of all outputs."""

import torch

from mmlearn.layers import small_linear


def test_a_small_head_prefers_nothing_at_first():
    head = small_linear(400, 50)
    assert head.weight.shape == (50, 400)
    assert 0.019 < head.weight.std() < 0.021
    assert head.weight.mean().abs() < 0.001
    assert torch.equal(head.bias, torch.zeros(50))
