"""Blocks equal PyTorch's encoder and decoder layers at the same weights; depth, starts and activations."""

import math

import pytest
import torch
from testing_tools import close, refused
from torch import nn

from mmlearn.layers import MLP, Transformer, TransformerBlock, TransformerConfig, record_attention, select_tokens
from mmlearn.layers.activations import ACTIVATIONS

B, T, N, D, H = 3, 5, 7, 12, 4


def copy_attention(theirs, ours):
    with torch.no_grad():
        for part, weight, bias in zip(
            (ours.query, ours.key, ours.value), theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3)
        ):
            part.weight.copy_(weight)
            part.bias.copy_(bias)
    ours.output.load_state_dict(theirs.out_proj.state_dict())


def twins(norm_first, activation, decoder=False):
    """PyTorch's layer with noise on every parameter, norms included, and ours with the same weights."""
    build = nn.TransformerDecoderLayer if decoder else nn.TransformerEncoderLayer
    theirs = build(D, H, 20, 0.0, activation, layer_norm_eps=1e-3, batch_first=True, norm_first=norm_first)
    config = TransformerConfig(D, 1, H, mlp_width=20, activation=activation, norm_first=norm_first, norm_epsilon=1e-3)
    ours = TransformerBlock(config, context_width=D if decoder else None)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    copy_attention(theirs.self_attn, ours.attention)
    norms = [ours.attention_norm, ours.mlp_norm]
    if decoder:
        copy_attention(theirs.multihead_attn, ours.cross_attention)
        norms.insert(1, ours.cross_attention_norm)
    for i, norm in enumerate(norms, start=1):
        norm.load_state_dict(getattr(theirs, f"norm{i}").state_dict())
    ours.mlp.expand.load_state_dict(theirs.linear1.state_dict())
    ours.mlp.contract.load_state_dict(theirs.linear2.state_dict())
    return theirs, ours


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_block_equals_pytorch(norm_first, activation, causal, masked):
    theirs, ours = twins(norm_first, activation)
    x = torch.randn(B, T, D, requires_grad=True)
    mask = torch.arange(T) < torch.tensor([[2], [4], [T]]) if masked else None
    expected = theirs(
        x,
        src_mask=nn.Transformer.generate_square_subsequent_mask(T) < 0 if causal else None,
        src_key_padding_mask=None if mask is None else ~mask,
    )
    output = ours(x, mask, causal)
    close(output, expected)
    close(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (output, expected)), 1e-4)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
def test_decoder_block_equals_pytorch(norm_first, masked):
    theirs, ours = twins(norm_first, "gelu", decoder=True)
    x, context = torch.randn(B, T, D, requires_grad=True), torch.randn(B, N, D, requires_grad=True)
    mask = torch.arange(T) < torch.tensor([[2], [4], [T]]) if masked else None
    context_mask = torch.arange(N) < torch.tensor([[N], [1], [3]]) if masked else None
    expected = theirs(
        x,
        context,
        tgt_mask=nn.Transformer.generate_square_subsequent_mask(T) < 0,
        tgt_key_padding_mask=None if mask is None else ~mask,
        memory_key_padding_mask=None if mask is None else ~context_mask,
    )
    output = ours(x, mask, True, context, context_mask)
    close(output, expected)
    for got, want in zip(*(torch.autograd.grad(y.square().sum(), (x, context)) for y in (output, expected))):
        close(got, want, 1e-4)


BLOCK = TransformerConfig(D, 1, H)


def test_a_context_comes_only_where_it_was_planned():
    x, context = torch.randn(B, T, D), torch.randn(B, N, 9)
    for plain in (TransformerBlock(BLOCK), Transformer(BLOCK), Transformer(BLOCK, context_width=9, context_blocks=[])):
        refused("takes a context only if it was built with context_width", plain, x, context=context)


@pytest.mark.parametrize("norm_first", [False, True])
def test_without_a_context_a_decoder_block_is_the_encoder_block_of_its_weights(norm_first):
    config = TransformerConfig(D, 1, H, norm_first=norm_first)
    decoder, encoder, x = TransformerBlock(config, context_width=9), TransformerBlock(config), torch.randn(B, T, D)
    encoder.load_state_dict({k: v for k, v in decoder.state_dict().items() if not k.startswith("cross_attention")})
    close(decoder(x), encoder(x), 1e-6)
    assert not torch.allclose(decoder(x, context=torch.randn(B, N, 9)), encoder(x), atol=1e-3)


@pytest.mark.parametrize("context_width", [None, 9])
def test_transformer_is_its_blocks_in_order_with_all_their_arguments(context_width):
    x, context = torch.randn(B, T, D), None if context_width is None else torch.randn(B, N, 9)
    mask, context_mask = torch.arange(T) < torch.tensor([[2], [4], [T]]), torch.arange(N)[None].expand(B, N) < 5
    bias, rotary = torch.randn(1, H, T, T), torch.randn(T, 1)
    transformer = Transformer(TransformerConfig(D, 3, 6, mlp_width=10, norm_first=False), context_width)
    bias = torch.randn(1, 6, T, T)
    expected = x
    for block in transformer.blocks:
        expected = block(expected, mask, True, context, context_mask, bias, rotary)
    assert len(transformer.blocks) == 3
    got = transformer(x, mask, True, context, context_mask, bias, rotary)
    close(got, expected, 1e-6)
    for changed in (dict(bias=bias + torch.randn(T)), dict(rotary=rotary * 2)):
        other = transformer(x, mask, True, context, context_mask, **dict(bias=bias, rotary=rotary) | changed)
        assert not torch.allclose(other, got, atol=1e-3)


@pytest.mark.parametrize("blocks", [(0, 2), (1,), range(4)])
def test_chosen_blocks_attend_to_the_context_and_the_others_do_not(blocks):
    """As a Q-Former's do, in every second block."""
    transformer = Transformer(TransformerConfig(D, 4, H), context_width=9, context_blocks=blocks)
    assert [i for i, block in enumerate(transformer.blocks) if block.cross_attention is not None] == list(blocks)
    x, context = torch.randn(B, T, D), torch.randn(B, N, 9)
    expected = x
    for i, block in enumerate(transformer.blocks):
        expected = block(expected, context=context) if i in blocks else block(expected)
    close(transformer(x, context=context), expected, 1e-6)


@pytest.mark.parametrize("position", [0, -1, [2, 0, 4], [[0, 1], [4, 0], [2, 2]]])
def test_reading_is_selecting_from_the_whole(position):
    x, transformer = torch.randn(B, T, D), Transformer(TransformerConfig(D, 2, H))
    mask = torch.arange(T) < torch.tensor([[2], [4], [T]])
    whole = transformer(x, mask, causal=True)
    if isinstance(position, int):
        expected = whole[:, position]
    else:
        position = torch.tensor(position)
        expected = torch.stack([row[positions] for row, positions in zip(whole, position)])
    close(transformer.read(x, position, mask, causal=True), expected, 1e-6)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("context_blocks", [None, (0, 2), (1,)])  # None: no context
@pytest.mark.parametrize("position", [0, -1, [2, 0, -1], [[0, 1], [4, 0], [2, 2]]])
def test_reading_few_tokens_has_the_gradients_of_the_whole(position, context_blocks, masked, causal, norm_first):
    """A row of padding included."""
    config = TransformerConfig(D, 3, H, norm_first=norm_first)
    transformer = Transformer(config, None if context_blocks is None else 9, context_blocks)
    x, context = torch.randn(B, T, D, requires_grad=True), torch.randn(B, N, 9, requires_grad=True)
    mask = torch.arange(T) < torch.tensor([[2], [0], [T]]) if masked else None
    given = dict(mask=mask, causal=causal)
    if context_blocks is not None:
        given |= dict(context=context, context_mask=torch.arange(N) < torch.tensor([[0], [N], [3]]) if masked else None)
    where = position if isinstance(position, int) else torch.tensor(position)
    found = []
    for output in (transformer.read(x, where, **given), select_tokens(transformer(x, **given), where)):
        weight = torch.linspace(-1, 1, output.numel()).view_as(output)
        leaves = [x, *([] if context_blocks is None else [context]), *transformer.parameters()]
        found.append([output, *torch.autograd.grad((output * weight).sum(), leaves)])
    for got, expected in zip(*found, strict=True):
        close(got, expected)


def test_in_the_last_block_only_what_is_read_is_computed_unless_maps_are_recorded():
    x, transformer, rows = torch.randn(B, T, D), Transformer(TransformerConfig(D, 2, H), context_width=9), []
    for block in transformer.blocks:
        block.mlp.register_forward_hook(lambda _, __, output: rows.append(output.shape[1]))
    positions = torch.tensor([[0, 1], [4, 0], [2, 2]])
    few = transformer.read(x, 0), transformer.read(x, positions, context=torch.randn(B, N, 9))
    assert [part.shape for part in few] == [(B, D), (B, 2, D)]
    assert rows == [T, 1, T, 2]
    for recorded in (transformer, transformer.blocks[1].attention, transformer.blocks[1].cross_attention):
        with record_attention(recorded) as maps:
            transformer.read(x, positions, context=torch.randn(B, N, 9))
        assert all(weights.shape[2] == T for weights in maps.values())
    assert rows[4:] == [T] * 6


@pytest.mark.parametrize("position", [T, -T - 1, [0, 1, T]])
def test_positions_that_there_are_not_are_refused(position):
    where = position if isinstance(position, int) else torch.tensor(position)
    transformer, x = Transformer(TransformerConfig(D, 2, H)), torch.randn(B, T, D)
    with pytest.raises(IndexError):
        transformer.read(x, where)


@pytest.mark.parametrize("norm_first", [False, True])
def test_without_positions_a_transformer_does_not_know_the_order(norm_first):
    """Permuting the tokens permutes the output; a causal mask breaks this, because it gives the tokens an order."""
    x, transformer = torch.randn(B, T, D), Transformer(TransformerConfig(D, 2, H, norm_first=norm_first))
    order = torch.tensor([3, 0, 4, 2, 1])
    close(transformer(x[:, order]), transformer(x)[:, order])
    assert not torch.allclose(transformer(x[:, order], causal=True), transformer(x, causal=True)[:, order], atol=1e-2)


@pytest.mark.parametrize("seed", range(3))
def test_the_future_and_the_padding_change_nothing(seed):
    torch.manual_seed(seed)
    x, transformer = torch.randn(B, T, D), Transformer(TransformerConfig(D, 2, H))
    changed = x.clone()
    changed[:, 3:] = 100 * torch.randn(B, T - 3, D)
    assert torch.equal(transformer(changed, causal=True)[:, :3], transformer(x, causal=True)[:, :3])
    real = (torch.arange(T) < 3).expand(B, T)
    assert torch.equal(transformer(changed, real)[:, :3], transformer(x, real)[:, :3])
    assert not torch.allclose(transformer(changed)[:, :3], transformer(x)[:, :3], atol=1e-2)


def test_weights_start_scaled_by_width_and_depth():
    """Standard deviations to 5 %, of 200 · 200 draws and more; so activations neither die nor explode with depth."""
    width, depth = 200, 8
    transformer = Transformer(TransformerConfig(width, depth, 4, mlp_width=300), context_width=100)
    for name, parameter in transformer.named_parameters():
        if parameter.ndim == 2:
            ends_branch = name.endswith(("output.weight", "contract.weight"))
            std = (2 * depth * width) ** -0.5 if ends_branch else parameter.shape[1] ** -0.5
            assert parameter.std().item() == pytest.approx(std, rel=0.05), name
            assert abs(parameter.mean().item()) < 0.05 * std, name
        elif "norm" not in name:
            assert (parameter == 0).all(), name
    x = torch.randn(2, 30, width)
    assert transformer(x, context=torch.randn(2, 30, 100)).std().item() < 3


FORMULAS = {
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "quick_gelu": lambda x: x / (1 + math.exp(-1.702 * x)),
    "relu": lambda x: max(x, 0),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "squared_relu": lambda x: max(x, 0) ** 2,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_mlp_equal_their_formulas(name):
    x = torch.linspace(-4, 4, 33)
    close(ACTIVATIONS[name](x), torch.tensor([float(FORMULAS[name](value)) for value in x.tolist()]), 1e-6)
    mlp = MLP(6, 10, name)
    x = torch.randn(B, T, 6)
    hidden = x @ mlp.expand.weight.T + mlp.expand.bias
    hidden = torch.tensor([FORMULAS[name](value) for value in hidden.flatten().tolist()]).view_as(hidden)
    close(mlp(x), hidden @ mlp.contract.weight.T + mlp.contract.bias)


def test_mlp_is_four_times_as_wide_unless_set_and_names_known_activations():
    assert MLP(6).expand.weight.shape == (24, 6)
    assert MLP(6, 7).contract.weight.shape == (6, 7)
    refused(r"Unknown activation 'gleu'; choose from gelu, .*silu", MLP, 6, activation="gleu")


def test_dropout_acts_on_every_branch_and_on_attention_weights_in_training_only():
    x = torch.randn(B, T, D)
    block = TransformerBlock(TransformerConfig(D, 1, H, dropout=1 - 1e-12))  # drops all: only the residual path is left
    assert torch.equal(block(x), x)
    assert not torch.allclose(block.eval()(x), x, atol=1e-2)
    assert torch.equal(block(x), block(x))
    half = TransformerBlock(TransformerConfig(D, 1, H, dropout=0.5))
    assert half.attention.dropout == 0.5
    with record_attention(half):
        assert not torch.equal(half(x), half(x))
