"""Attention pooling equals PyTorch's multi-head attention from learned queries; one token picked per row."""

import pytest
import torch
from testing_tools import close
from torch import nn

from mmlearn.layers import AttentionPooling, real_tokens_first, select_tokens

B, N, D = 3, 6, 12


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("num_queries", [1, 4])
def test_pooling_equals_pytorch(num_queries, masked):
    pooling, theirs = AttentionPooling(D, 3, num_queries=num_queries), nn.MultiheadAttention(D, 3, batch_first=True)
    ours = pooling.attention
    parts = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    theirs.out_proj.load_state_dict(ours.output.state_dict())
    x, mask = torch.randn(B, N, D), torch.arange(N) < torch.tensor([[1], [4], [N]])
    queries = pooling.queries.expand(B, num_queries, D)
    expected, _ = theirs(queries, x, x, key_padding_mask=~mask if masked else None)
    got = pooling(x, mask if masked else None)
    assert got.shape == (B, num_queries, D)
    close(got, expected)


def test_pooling_sees_a_set():
    """The order of the tokens does not matter, nor what stands in padding; what stands elsewhere does."""
    pooling, x = AttentionPooling(D, 3, num_queries=2), torch.randn(B, N, D)
    close(pooling(x[:, torch.randperm(N)]), pooling(x))
    mask, changed = (torch.arange(N) < 4).expand(B, N), x.clone()
    changed[:, 4:] = 1e3
    close(pooling(changed, mask), pooling(x[:, :4]))
    assert not torch.allclose(pooling(changed), pooling(x), atol=1e-2)


def test_select_tokens_takes_the_position_of_each_row():
    x, position = torch.randn(4, N, D, requires_grad=True), torch.tensor([0, 5, 2, 2])
    picked = select_tokens(x, position)
    for b, p in enumerate(position.tolist()):
        assert torch.equal(picked[b], x[b, p])
    picked.sum().backward()
    assert x.grad.sum(-1).nonzero().tolist() == [[0, 0], [1, 5], [2, 2], [3, 2]]


def test_real_first_keeps_the_order_of_what_is_real():
    mask = torch.tensor([[False, True, True, False, True], [True, True, False, False, False], [False] * 5])
    assert real_tokens_first(mask).tolist() == [[1, 2, 4, 0, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
