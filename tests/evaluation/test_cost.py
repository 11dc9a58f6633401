"""Operations are counted by hand, with attention on a CPU among them."""

import dataclasses

import pytest
import torch
from torch import nn

from mmlearn.evaluation import count_flops
from mmlearn.evaluation.cost import RECURRENT
from mmlearn.layers import Transformer, TransformerConfig
from mmlearn.models.trimodal.vatt import VATT, VATTConfig


@pytest.mark.parametrize("n", [16, 200])
def test_a_transformer_costs_its_products(n):
    model, x, d = Transformer(TransformerConfig(64, 2, 1)), torch.randn(3, n, 64), 64
    products = 3 * n * (4 * d * d + 8 * d * d) + 3 * 2 * n * n * d  # projections and MLP; scores and sums
    assert count_flops(lambda: model(x)) == 2 * 2 * products
    with torch.inference_mode():
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


@pytest.mark.parametrize("lengths", [None, [7, 4, 2]])
def test_a_recurrent_layer_costs_its_products(lengths):
    """Four gates of h numbers, each from the input and from the state before; padding is left out where it is said."""
    layer, x = nn.LSTM(6, 5, batch_first=True), torch.randn(3, 7, 6, requires_grad=True)
    if lengths:
        x = nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True)
    forward = 2 * (sum(lengths) if lengths else 3 * 7) * 4 * 5 * (6 + 5)
    assert count_flops(lambda: layer(x)) == forward
    if not lengths:
        assert count_flops(lambda: layer(x)[0].sum().backward()) == 3 * forward


def test_a_recurrent_layer_costs_as_much_on_a_gpu():
    """Whose kernel takes all layers and both ways at once: two layers of 6 and then 2 · 5 features, both ways."""
    shapes = [(20, 6), (20, 5), (20,), (20,)] * 2 + [(20, 10), (20, 5), (20,), (20,)] * 2
    forward = 2 * 21 * 4 * 5 * (2 * (6 + 5) + 2 * (10 + 5))
    layer = nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True)
    assert [tuple(x.shape) for x in layer._flat_weights] == shapes
    kernel, back = (RECURRENT[name] for name in (torch.ops.aten._cudnn_rnn, torch.ops.aten._cudnn_rnn_backward))
    assert kernel((3, 7, 6), shapes, 4, None, dropout=0.0) == forward
    assert back((21, 6), shapes, 4) == 2 * forward  # of packed sequences


def test_dropped_tokens_cost_nothing():
    model = VATT(dataclasses.replace(VATTConfig.tiny(), drop_rate=0.5)).eval()
    inputs = torch.randn(2, 8, 3, 64, 64), torch.randn(2, 32_000), torch.zeros(2, 4, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    whole = count_flops(lambda: model(*inputs))
    half = count_flops(lambda: model(*inputs, generator=generator))
    assert 0.4 < half / whole < 0.8
