"""Frames never read padding, wherever the norms are."""

import pytest
import torch
from testing_tools import close

from mmlearn.models.speech.context_network import ContextConfig, ContextNetwork


def build(norm_first):
    return ContextNetwork(ContextConfig(16, 2, 2, position_kernel=5, position_groups=2, norm_first=norm_first)).eval()


@pytest.mark.parametrize("norm_first", [False, True])
def test_padding_changes_nothing(norm_first):
    model, x, mask = build(norm_first), torch.randn(3, 9, 16), torch.arange(9) < torch.tensor([[9], [5], [1]])
    output = model(x, mask)
    other = torch.where(mask[..., None], x, torch.randn(3, 9, 16) * 50)
    assert torch.equal(model(other, mask)[mask], output[mask])
    close(model(x[1:2, :5], mask[1:2, :5])[0], output[1, :5])
    assert not torch.allclose(model(other, torch.ones_like(mask))[mask], output[mask], atol=1e-3)
