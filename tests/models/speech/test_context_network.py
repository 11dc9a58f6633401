"""Frames read each other, know their place, and never read padding."""

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


@pytest.mark.parametrize("norm_first", [False, True])
def test_every_frame_reads_every_other_and_knows_its_place(norm_first):
    model, x, mask = build(norm_first), torch.randn(1, 20, 16), torch.ones(1, 20, dtype=torch.bool)
    output, changed = model(x, mask), x.clone()
    changed[0, 3, 0] += 5
    assert ((model(changed, mask) - output).abs().amax(-1) > 1e-6).all()
    assert not torch.allclose(model(x.flip(1), mask).flip(1), output, atol=1e-3)


def test_the_norm_is_where_it_should_be():
    mask = torch.ones(1, 6, dtype=torch.bool)
    for norm_first in (False, True):
        model = build(norm_first)
        output = model(100 * torch.randn(1, 6, 16), mask)
        close(output.mean(-1), torch.zeros(1, 6), 1e-4)
        close(output.var(-1, unbiased=False), torch.ones(1, 6), 1e-3)
        model.norm.weight.data.zero_()
        # A last norm of weight 0 leaves nothing; a first one leaves the blocks nothing but their biases, which are 0.
        assert model(torch.randn(1, 6, 16), mask).abs().max() < 1e-3
        seen = []
        model.transformer.blocks[0].register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        model(torch.randn(1, 6, 16), mask)
        assert bool((seen[0] == 0).all()) is not norm_first
