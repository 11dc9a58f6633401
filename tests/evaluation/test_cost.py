"""Operations are counted by hand, with attention on a CPU among them."""

import dataclasses

import pytest
import torch
from torch import nn

from mmlearn.evaluation import count_flops
from mmlearn.layers import Transformer, TransformerConfig
from mmlearn.models.trimodal.vatt import VATT, VATTConfig


@pytest.mark.parametrize("n", [16, 200])
def test_a_transformer_costs_its_products(n):
    model, x, d = Transformer(TransformerConfig(64, 2, 1)), torch.randn(3, n, 64), 64
    products = 3 * n * (4 * d * d + 8 * d * d) + 3 * 2 * n * n * d  # projections and MLP; scores and sums
    assert count_flops(lambda: model(x)) == 2 * 2 * products


def test_a_mask_saves_nothing_and_a_convolution_costs_its_products():
    model, x = Transformer(TransformerConfig(64, 1, 1)), torch.randn(2, 100, 64)
    mask = torch.arange(100).expand(2, 100) < 50
    assert count_flops(lambda: model(x, mask)) == count_flops(lambda: model(x))
    assert count_flops(lambda: nn.Conv1d(4, 6, 3)(torch.randn(2, 4, 10))) == 2 * 2 * 8 * 6 * 4 * 3


def test_a_backward_pass_costs_twice_the_forward_pass():
    layer, x = nn.Linear(8, 8), torch.randn(5, 8, requires_grad=True)
    forward = count_flops(lambda: layer(x))
    assert count_flops(lambda: layer(x).sum().backward()) == 3 * forward == 3 * 2 * 5 * 64


def test_dropped_tokens_cost_nothing():
    model = VATT(dataclasses.replace(VATTConfig.tiny(), drop_rate=0.5)).eval()
    inputs = torch.randn(2, 8, 3, 64, 64), torch.randn(2, 32_000), torch.zeros(2, 4, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    whole = count_flops(lambda: model(*inputs))
    half = count_flops(lambda: model(*inputs, generator=generator))
    assert 0.4 < half / whole < 0.8
