"""Swin: windows keep to themselves; shifted ones reach their neighbours, and nothing across the picture's border."""

import pytest
import torch
from einops import rearrange
from testing_tools import close

from mmlearn.layers import TransformerConfig, record_attention
from mmlearn.models.audio.swin import PatchMerging, Swin, SwinBlock, SwinConfig, relative_places, same_side


def grid(b=2, rows=8, columns=8, width=12):
    return torch.randn(b, rows, columns, width)


def block(num_heads, shift=0, dropout=0.0):
    return SwinBlock(TransformerConfig(12, 1, num_heads, dropout=dropout), 4, shift)


def reached(layer, row, column, rows=8, columns=8):
    """Where the output changes when this one token does."""
    x = grid(1, rows, columns)
    other = x.clone()
    other[0, row, column] = torch.randn(12)  # a constant would be lost in a norm
    return (layer(other) - layer(x)).abs().amax(-1)[0] > 1e-6


def test_relative_places_by_hand():
    """Of a window of 2 × 2: rows of the table by how far down, then how far right, the query stands from the key."""
    places = relative_places(2)
    assert places.shape == (4, 4)
    assert places.diagonal().tolist() == [4, 4, 4, 4]  # the middle of 3 × 3
    assert places[0].tolist() == [4, 3, 1, 0]  # the key right of it, below, and both
    for window in (1, 3, 4):
        places = relative_places(window)
        for i in range(window**2):
            for j in range(window**2):
                down, right = i // window - j // window, i % window - j % window
                assert places[i, j] == (down + window - 1) * (2 * window - 1) + right + window - 1


def test_attention_in_a_window_step_by_step():
    swin, x = block(3), grid()
    torch.nn.init.normal_(swin.position_bias)
    layer = swin.attention
    expected = torch.empty_like(x)
    for row in (0, 4):
        for column in (0, 4):
            tokens = rearrange(x[:, row : row + 4, column : column + 4], "b y x d -> b (y x) d")
            query, key, value = (
                rearrange(part(tokens), "b n (h k) -> b h n k", h=3) for part in (layer.query, layer.key, layer.value)
            )
            bias = swin.position_bias[relative_places(4)].permute(2, 0, 1)
            weights = (query @ key.mT / 2 + bias).softmax(-1)
            out = layer.output(rearrange(weights @ value, "b h n k -> b n (h k)"))
            expected[:, row : row + 4, column : column + 4] = rearrange(out, "b (y x) d -> b y x d", y=4)
    close(swin.attend_in_windows(x), expected)
    whole = x + swin.attend_in_windows(swin.attention_norm(x))
    close(swin(x), whole + swin.mlp(swin.mlp_norm(whole)))


def test_windows_keep_to_themselves():
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[4:, :4] = True
    assert torch.equal(reached(block(2).attend_in_windows, 5, 2), expected)
    assert torch.equal(reached(block(2), 4, 0), expected)


@pytest.mark.parametrize(
    ("token", "rows", "columns"),
    [
        ((3, 3), slice(2, 6), slice(2, 6)),  # a window across four others
        ((0, 3), slice(0, 2), slice(2, 6)),  # at the border there is half of one
        ((7, 0), slice(6, 8), slice(0, 2)),  # and in the corner a quarter
    ],
)
def test_shifted_windows_reach_neighbours_and_never_across_the_border(token, rows, columns):
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[rows, columns] = True
    assert torch.equal(reached(block(2, shift=2).attend_in_windows, *token), expected)


def test_same_side_by_hand():
    """A row of two windows of 2 × 2 after a shift of 1: the last of each axis came from the other end."""
    same = same_side(2, 4, 2, 1)
    assert same.shape == (2, 4, 4)
    assert (
        same[0].tolist() == [[True, True, False, False]] * 2 + [[False, False, True, True]] * 2
    )  # the lower row is new
    assert torch.equal(same[1], torch.eye(4, dtype=torch.bool))  # and here the right column too


def test_attention_is_recorded_by_window():
    for shift in (0, 2):
        layer, x = block(3, shift), grid()
        with record_attention(layer) as maps:
            recorded = layer(x)
        weights = maps["attention"]
        assert weights.shape == (2 * 4, 3, 16, 16)
        close(weights.sum(-1), torch.ones(8, 3, 16))
        close(layer(x), recorded)
        across = ~same_side(8, 8, 4, 2).repeat(2, 1, 1)[:, None].expand_as(weights)
        assert (weights[across] == 0).all() == bool(shift)


def test_bias_has_a_gradient_and_nothing_is_attended_through_it_across_the_border():
    layer = block(2, shift=2)
    layer(grid()).square().sum().backward()
    assert (layer.position_bias.grad != 0).all()
    assert layer.position_bias.grad.isfinite().all()


def test_merging_by_hand():
    layer, x = PatchMerging(6), grid(2, 4, 6, 6)
    out = layer(x)
    assert out.shape == (2, 2, 3, 12)
    four = torch.cat([x[:, 2, 4], x[:, 3, 4], x[:, 2, 5], x[:, 3, 5]], -1)  # down, then right
    close(out[:, 1, 2], layer.reduction(layer.norm(four)))


def test_stages_halve_the_grid_and_double_the_width():
    swin = Swin(SwinConfig(8, (2, 2, 1), (1, 2, 2), 4), (16, 32))
    assert swin(grid(2, 16, 32, 8)).shape == (2, 4, 8, 32)
    blocks = [module for module in swin.modules() if isinstance(module, SwinBlock)]
    assert [(layer.window, layer.shift) for layer in blocks] == [(4, 0), (4, 2), (4, 0), (4, 2), (4, 0)]
    small = Swin(SwinConfig(8, (2, 2), (1, 1), 4), (4, 4))  # one window, then fewer tokens than a window
    blocks = [module for module in small.modules() if isinstance(module, SwinBlock)]
    assert [(layer.window, layer.shift) for layer in blocks] == [(4, 0), (4, 0), (2, 0), (2, 0)]
    assert small(grid(1, 4, 4, 8)).shape == (1, 2, 2, 16)


def test_activations_keep_their_size_at_the_start():
    torch.manual_seed(0)
    out = Swin(SwinConfig(64, (2, 4), (4, 8), 4), (16, 16))(grid(2, 16, 16, 64))
    assert 0.7 < out.std().item() < 2


def test_dropout_acts_in_training_only():
    layer, x = block(2, dropout=0.5), grid()
    assert not torch.equal(layer(x), layer(x))
    assert not torch.equal(layer.attend_in_windows(x), layer.attend_in_windows(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_grids_that_windows_do_not_fill_are_told(unchecked):
    with pytest.raises(ValueError, match="Windows of 4 × 4 tokens do not fill a grid of 8 × 6"):
        block(2)(grid(1, 8, 6))
    for wrong, says in [
        (dict(grid=(12, 12), window=8), "Stage 0 has 12 × 12 tokens"),
        (dict(grid=(8, 12), window=4), "Stage 1 has 4 × 6 tokens"),
        (dict(grid=(5, 5), window=5), r"Stage 1 has 2.5 × 2.5 tokens, which windows of 5 × 5 do not fill"),
        (dict(grid=(1, 1), window=1), "Stage 1 has 0.5 × 0.5 tokens"),
    ]:
        with pytest.raises(ValueError, match=says):
            Swin(SwinConfig(8, (1, 1), (1, 1), wrong["window"]), wrong["grid"])
    with pytest.raises(ValueError, match=r"Each stage has a depth and a number of heads; got \(2, 2\) and \(1,\)"):
        Swin(SwinConfig(8, (2, 2), (1,), 4), (8, 8))
    with pytest.raises(ValueError, match="width 12 is no multiple of num_heads 5"):
        block(5)
