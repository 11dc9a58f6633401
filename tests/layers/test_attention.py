"""Attention equals loops, explicit weights and PyTorch's own multi-head attention; recording changes nothing."""

import math

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from testing_tools import close, refused
from torch import nn

from mmlearn.layers import (
    Attention,
    Transformer,
    TransformerConfig,
    attention,
    attention_weights,
    record_attention,
    rotary_angles,
    rotate,
)

B, H, Q, N, K = 2, 3, 4, 6, 5
MASK_SHAPES = {None: None, 2: (B, N), 3: (B, Q, N), 4: (B, H, Q, N)}


def tensors(queries=Q, keys=N, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return draw(B, H, queries, K), draw(B, H, keys, K), draw(B, H, keys, K + 2)


def random_mask(shape, seed=0):
    return None if shape is None else torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.6


def by_loops(query, key, value, allowed):
    """Equation 1, one query at a time, over a list of the keys that ``allowed(b, h, q, n)`` lets through."""
    output, weights = torch.zeros(*query.shape[:-1], value.shape[-1]), torch.zeros(*query.shape[:-1], key.shape[-2])
    for b, h, q in torch.cartesian_prod(*map(torch.arange, query.shape[:-1])).tolist():
        seen = [n for n in range(key.shape[-2]) if allowed(b, h, q, n)]
        scores = {n: sum((query[b, h, q] * key[b, h, n]).tolist()) / math.sqrt(query.shape[-1]) for n in seen}
        total = sum(math.exp(score) for score in scores.values())
        for n, score in scores.items():
            weights[b, h, q, n] = math.exp(score) / total
            output[b, h, q] += math.exp(score) / total * value[b, h, n]
    return output, weights


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("ndim", MASK_SHAPES)
def test_fused_equals_explicit_equals_loops(ndim, causal, seed):
    """Masks keep what is True, whatever their dimensions; with ``causal`` the last query stands at the last key."""
    query, key, value = (x.float() for x in tensors(seed=seed))
    mask = random_mask(MASK_SHAPES[ndim], seed)

    def allowed(b, h, q, n):
        index = {None: (), 2: (b, n), 3: (b, q, n), 4: (b, h, q, n)}[ndim]
        return (mask is None or mask[index].item()) and (not causal or n <= q + N - Q)

    expected, expected_weights = by_loops(query, key, value, allowed)
    weights = attention_weights(query, key, mask, causal)
    close(weights, expected_weights)
    close(weights @ value, expected)
    close(attention(query, key, value, mask, causal), expected)


@pytest.mark.parametrize("shape", [(B, H, Q, N), (1, H, Q, N), (1, 1, Q, N), (B, 1, 1, N), (B, H, Q, 1)])
@pytest.mark.parametrize("ndim", [None, 2, 4])
@pytest.mark.parametrize("causal", [False, True])
def test_a_bias_is_added_to_the_scores(causal, ndim, shape):
    """Its gradient too is that of the explicit softmax; a query that may attend nothing still gets zeros."""
    query, key, value = tensors()
    mask = random_mask(MASK_SHAPES[ndim])
    if mask is not None:
        mask[0] = False
    bias = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    scores = torch.einsum("bhqk,bhnk->bhqn", query, key) / math.sqrt(K) + bias
    allowed = torch.ones(B, H, Q, N, dtype=torch.bool)
    if mask is not None:
        allowed = mask[:, None, None].expand(B, H, Q, N) if ndim == 2 else mask
    if causal:
        allowed = allowed & torch.ones(Q, N, dtype=torch.bool).tril(N - Q)
    powers = scores.exp() * allowed
    expected = powers / powers.sum(-1, keepdim=True).clamp(min=1e-30)
    output = attention(query, key, value, mask, causal, bias)
    weights = attention_weights(query, key, mask, causal, bias)
    close(weights, expected, 1e-12)
    close(output, expected @ value, 1e-12)
    if mask is not None:
        assert (output[0] == 0).all()
    gradients = [torch.autograd.grad(y.square().sum(), bias)[0] for y in (output, weights @ value, expected @ value)]
    for gradient in gradients[:2]:
        close(gradient, gradients[2], 1e-12)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("masked", [False, True])
def test_a_bias_works_in_the_module_recorded_or_not(masked):
    x, layer, bias = torch.randn(B, N, 12), Attention(12, H), torch.randn(1, H, N, N)
    mask = torch.arange(N) < torch.tensor([[2], [N]]) if masked else None
    expected, expected_weights = pytorch(
        layer,
        x,
        x,
        attn_mask=bias.expand(B, H, N, N).flatten(0, 1),
        key_padding_mask=None if mask is None else torch.zeros(mask.shape).masked_fill(~mask, -torch.inf),
    )
    close(layer(x, mask=mask, bias=bias), expected)
    with record_attention(layer) as maps:
        close(layer(x, mask=mask, bias=bias), expected)
    close(maps[""], expected_weights)


def test_rotation_equals_complex_multiplication():
    """Features i and i + k/2 are one complex number, turned by e^(iθ); in double precision."""
    x, angle = torch.randn(B, H, N, 8, dtype=torch.float64), rotary_angles(N, 8).double()
    assert angle.shape == (N, 4)
    for position, i in ((0, 0), (1, 0), (5, 3), (2, 1)):
        assert angle[position, i].item() == pytest.approx(position * 10_000 ** (-2 * i / 8), rel=1e-6)
    number = torch.complex(x[..., :4], x[..., 4:]) * torch.exp(1j * angle)
    close(rotate(x, angle), torch.cat([number.real, number.imag], -1), 1e-12)
    rows = torch.randn(B, N, 4, dtype=torch.float64)  # positions of each row
    for b in range(B):
        close(rotate(x, rows)[b], rotate(x[b : b + 1], rows[b])[0], 1e-12)
    refused("head_width must be even, got 5", rotary_angles, N, 5)


def test_rotated_scores_depend_on_the_distance_alone():
    query, key = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    angle = rotary_angles(30, 8)
    turn = lambda x, position: rotate(x, angle[position : position + 1])  # noqa: E731
    for a, b, shift in ((3, 1, 20), (0, 7, 11), (5, 5, 24)):
        near = (turn(query, a) * turn(key, b)).sum()
        close(near, (turn(query, a + shift) * turn(key, b + shift)).sum(), 1e-4)
    assert not torch.allclose((turn(query, 3) * turn(key, 1)).sum(), (turn(query, 9) * turn(key, 1)).sum(), atol=1e-2)


@pytest.mark.parametrize("queries", [1, 3, N])
def test_the_module_turns_queries_and_keys_and_not_values(queries):
    """With fewer queries than keys the last query stands at the last key."""
    x, layer, angle = torch.randn(B, N, 12), Attention(12, 3), rotary_angles(N, 4)
    split = lambda y: rearrange(y, "b n (h k) -> b h n k", h=3)  # noqa: E731
    query, key = (rotate(split(part(x)), angle) for part in (layer.query, layer.key))
    weights = (query @ key.mT / 2).masked_fill(~torch.ones(N, N, dtype=torch.bool).tril(), -torch.inf).softmax(-1)
    expected = layer.output(rearrange(weights @ split(layer.value(x)), "b h n k -> b n (h k)"))
    close(layer(x[:, -queries:], x, causal=True, rotary=angle), expected[:, -queries:])
    with record_attention(layer) as maps:
        layer(x[:, -queries:], x, causal=True, rotary=angle)
    close(maps[""], weights[:, :, -queries:])


@pytest.mark.parametrize("queries", [1, 2, N])
def test_causal_with_fewer_queries_is_the_end_of_the_whole(queries):
    """As when a text is continued word by word: the last query sees every key, the one before it all but the last."""
    query, key, value = tensors(queries=N)
    whole = attention(query, key, value, causal=True)
    close(attention(query[:, :, -queries:], key, value, causal=True), whole[:, :, -queries:], 1e-12)
    weights = attention_weights(query[:, :, -queries:], key, causal=True)
    assert (weights[:, :, -1] > 0).all()
    if queries > 1:
        assert (weights[:, :, -2, -1] == 0).all()
        assert (weights[:, :, -2, :-1] > 0).all()


def test_causal_with_more_queries_than_keys_gives_zeros_before_the_first_key():
    query, key, value = tensors(queries=5, keys=3)
    output = attention(query, key, value, causal=True)
    assert (output[:, :, :2] == 0).all()
    close(output[:, :, 2:], attention(query[:, :, 2:], key, value, causal=True), 1e-12)


def test_masks_broadcast_axes_of_one():
    query, key, value = tensors()
    mask = random_mask((1, 1, N))
    close(attention(query, key, value, mask), attention(query, key, value, mask[0].expand(B, N)), 1e-12)


@pytest.mark.parametrize("explicit", [False, True])
def test_a_query_without_keys_gets_zeros_and_finite_gradients(explicit):
    query, key, value = (x.float().requires_grad_() for x in tensors())
    mask = torch.ones(B, Q, N, dtype=torch.bool)
    mask[0, 1] = False
    mask[1] = False
    weights = attention_weights(query, key, mask)
    output = weights @ value if explicit else attention(query, key, value, mask)
    assert (output[0, :, 1] == 0).all()
    assert (output[1] == 0).all()
    assert (output[0, :, 0] != 0).all()
    assert (weights.sum(-1) - mask.any(-1)[:, None].float()).abs().max() < 1e-6
    output.square().sum().backward()
    for x in (query, key, value):
        assert x.grad.isfinite().all()
        assert (x.grad[1] == 0).all()
        assert (x.grad[0] != 0).any()
    assert (query.grad[0, :, 1] == 0).all()


def test_weights_rows_sum_to_one_and_scale_with_the_head_width():
    query, key, _ = tensors()
    weights = attention_weights(query, key)
    close(weights.sum(-1), torch.ones(B, H, Q, dtype=torch.float64), 1e-12)
    # Two keys whose scores differ by √k · ln 3 before scaling are attended 1 : 3.
    query, key = torch.ones(1, 1, 1, 4), torch.stack([torch.zeros(4), torch.full((4,), math.log(3) / 2)])[None, None]
    close(attention_weights(query, key), torch.tensor([[[[0.25, 0.75]]]]))


@pytest.mark.parametrize("compute", [attention_weights, lambda q, k, mask: attention(q, k, k, mask)])
@pytest.mark.usefixtures("unchecked")
def test_wrong_masks_are_refused(compute):
    query, key, _ = tensors()
    for dtype in (torch.float32, torch.int64, torch.uint8):
        refused(rf"boolean, True where .* this is {dtype}", compute, query, key, torch.ones(B, N, dtype=dtype))
    for shape in ((N,), (B, N + 1), (B + 1, N), (B, N, Q), (B, H + 1, Q, N), (1, 1, 1, B, N), ()):
        with pytest.raises(
            ValueError, match=rf"b={B}, h={H}, q={Q}, n={N} this one has \({', '.join(map(str, shape))}"
        ):
            compute(query, key, torch.ones(shape, dtype=torch.bool))


def test_annotations_are_checked_in_this_test_run():
    query, key, value = tensors()
    with pytest.raises(jaxtyping.TypeCheckError):
        attention(query[0], key, value)
    with pytest.raises(jaxtyping.TypeCheckError):
        attention_weights(query, key[:1])


def pytorch(layer, x, context, **masks):
    """What PyTorch's multi-head attention makes of the same weights: output and weights by head."""
    output, weights = F.multi_head_attention_forward(
        x.transpose(0, 1),
        context.transpose(0, 1),
        context.transpose(0, 1),
        layer.output.in_features,
        layer.num_heads,
        None,
        torch.cat([linear.bias for linear in (layer.query, layer.key, layer.value)]),
        None,
        None,
        False,
        0.0,
        layer.output.weight,
        layer.output.bias,
        use_separate_proj_weight=True,
        q_proj_weight=layer.query.weight,
        k_proj_weight=layer.key.weight,
        v_proj_weight=layer.value.weight,
        average_attn_weights=False,
        **masks,
    )
    return output.transpose(0, 1), weights


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("masked", ["no", "padding", "causal", "both", "by head"])
def test_module_equals_pytorch(masked, seed):
    """Outputs, recorded weights and gradients, where PyTorch's masks say True for what may *not* be attended."""
    torch.manual_seed(seed)
    x, layer = torch.randn(B, N, 12), Attention(12, H)
    padding, by_head = torch.arange(N) < torch.tensor([[N - 2], [N]]), random_mask((B, H, N, N), seed)
    by_head[..., 0] = True  # PyTorch gives NaN where nothing may be attended
    past = torch.ones(N, N, dtype=torch.bool).tril()
    ours, theirs = {
        "no": ({}, {}),
        "padding": (dict(mask=padding), dict(key_padding_mask=~padding)),
        "causal": (dict(causal=True), dict(attn_mask=~past)),
        "both": (dict(mask=padding, causal=True), dict(key_padding_mask=~padding, attn_mask=~past)),
        "by head": (dict(mask=by_head), dict(attn_mask=~by_head.flatten(0, 1))),
    }[masked]
    with record_attention(layer) as maps:
        output = layer(x, **ours)
    expected, expected_weights = pytorch(layer, x, x, **theirs)
    close(layer(x, **ours), expected)
    close(output, expected)
    close(maps[""], expected_weights)
    gradients = torch.autograd.grad(layer(x, **ours).square().sum(), list(layer.parameters()))
    for got, wanted in zip(gradients, torch.autograd.grad(expected.square().sum(), list(layer.parameters()))):
        close(got, wanted, 1e-4)


def test_context_supplies_keys_and_values_of_its_own_width():
    x, context, layer = torch.randn(B, Q, 12), torch.randn(B, N, 7), Attention(12, H, context_width=7)
    mask = torch.arange(N) < torch.tensor([[1], [N - 1]])
    expected, _ = pytorch(layer, x, context, key_padding_mask=~mask)
    close(layer(x, context, mask), expected)
    assert layer.query.in_features == 12
    assert layer.key.in_features == layer.value.in_features == 7


def test_head_width_is_free_of_width():
    """Head i owns features i·k to (i+1)·k of the projections, and the output gathers all of them."""
    x, layer = torch.randn(B, N, 10), Attention(10, H, head_width=4)
    assert layer.query.weight.shape == layer.key.weight.shape == layer.value.weight.shape == (12, 10)
    assert layer.output.weight.shape == (10, 12)
    heads = []
    for i in range(H):
        query, key, value = (
            F.linear(x, part.weight[4 * i : 4 * i + 4], part.bias[4 * i : 4 * i + 4])
            for part in (layer.query, layer.key, layer.value)
        )
        heads.append((query @ key.mT / 2).softmax(-1) @ value)
    close(layer(x), layer.output(torch.cat(heads, -1)))


def test_width_must_divide_into_heads():
    refused("width 10 is no multiple of num_heads 3", Attention, 10, 3)
    assert all(linear.bias is None for linear in Attention(9, 3, bias=False).children())


def test_dropout_acts_in_training_only():
    x, layer = torch.randn(B, N, 12), Attention(12, H, dropout=0.5)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    plain = Attention(12, H)
    plain.load_state_dict(layer.state_dict())
    close(layer(x), plain(x), 1e-6)


class Tower(nn.Module):
    """Two layers of different widths, the second called twice."""

    def __init__(self):
        super().__init__()
        self.transformer = Transformer(TransformerConfig(12, 2, 3))
        self.pool = Attention(12, 2, context_width=12)

    def forward(self, x, mask=None, causal=False):
        x = self.transformer(x, mask, causal)
        return self.pool(self.pool(x[:, :1], x, mask), x, mask)


NAMES = ["transformer.blocks.0.attention", "transformer.blocks.1.attention", "pool", "pool#2"]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_recording_names_every_layer_and_changes_no_output(masked, causal):
    x, tower = torch.randn(B, N, 12), Tower()
    mask = torch.arange(N) < torch.tensor([[2], [N]]) if masked else None
    before = tower(x, mask, causal)
    with record_attention(tower) as maps:
        during = tower(x, mask, causal)
    close(during, before)
    assert list(maps) == NAMES  # in the order in which they ran, the second run of one layer as #2
    assert [tuple(weights.shape) for weights in maps.values()] == [(B, 3, N, N)] * 2 + [(B, 2, 1, N)] * 2
    for weights in maps.values():
        close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        if masked:
            assert (weights[0, ..., 2:] == 0).all()
    assert (maps[NAMES[0]].triu(1) == 0).all() == causal


@pytest.mark.parametrize("bias", [None, "fixed", "learned"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, "padding", "padding of one row", "by query", "by head", "nothing"])
@pytest.mark.parametrize("queries", [1, 4, N, N + 2])
def test_the_kernel_and_recorded_weights_agree(queries, mask, causal, bias):
    """Outputs and all gradients; a query that may attend nothing gets zeros, and its gradients are finite."""
    x, context = torch.randn(B, queries, 12, requires_grad=True), torch.randn(B, N, 8, requires_grad=True)
    layer = Attention(12, H, context_width=8)
    shapes = {
        "padding": (B, N),
        "padding of one row": (1, N),
        "by query": (B, queries, N),
        "by head": (B, H, queries, N),
    }
    real = {None: None, "nothing": torch.zeros(B, N, dtype=torch.bool)}
    real = real[mask] if mask in real else random_mask(shapes[mask])
    if mask in ("padding", "by query", "by head"):
        real[0] = False  # a row of padding
    if bias is not None:
        bias = torch.randn(1, H, queries, N, requires_grad=bias == "learned")
    leaves = [x, context, *layer.parameters(), *([bias] if bias is not None and bias.requires_grad else [])]

    def output_and_gradients():
        output = layer(x, context, real, causal, bias)
        return output, *torch.autograd.grad(output.square().sum(), leaves)

    fused = output_and_gradients()
    with record_attention(layer) as maps:
        written_out = output_and_gradients()
    assert maps[""].shape == (B, H, queries, N)
    for got, expected in zip(fused, written_out, strict=True):
        assert got.isfinite().all()
        close(got, expected)
    empty = (maps[""] == 0).all(-1).all(1)  # (b, q)
    assert empty.all() == (mask == "nothing")
    if empty.any():
        close(fused[0][empty], layer.output.bias.expand(int(empty.sum()), -1))


def test_recorded_weights_are_those_that_made_the_output():
    x, tower = torch.randn(B, N, 12), Tower()
    with record_attention(tower) as maps:
        output = tower(x, causal=True)
    x, pool = tower.transformer(x, causal=True), tower.pool
    values = rearrange(pool.value(x), "b n (h k) -> b h n k", h=2)
    close(output, pool.output(rearrange(maps["pool#2"] @ values, "b h 1 k -> b 1 (h k)")))


def test_nothing_is_recorded_before_or_after_the_block():
    x, tower = torch.randn(B, N, 12), Tower()
    tower(x)
    with record_attention(tower) as maps:
        assert maps == {}
        tower.transformer(x)
    tower(x)
    assert list(maps) == NAMES[:2]


def test_nested_recordings_do_not_see_each_other():
    x, tower = torch.randn(B, N, 12), Tower()
    with record_attention(tower) as outer:
        tower.transformer(x)
        with record_attention(tower.transformer) as inner:
            tower(x)
        tower.transformer(x)
    assert list(inner) == [name.removeprefix("transformer.") for name in NAMES[:2]]
    assert sorted(outer) == sorted([*NAMES, *(f"{name}#2" for name in NAMES[:2])])


def test_recording_ends_with_an_exception():
    x, tower = torch.randn(B, N, 12), Tower()
    with pytest.raises(RuntimeError, match="on purpose"), record_attention(tower) as maps:  # noqa: PT012
        tower.transformer(x)
        raise RuntimeError("on purpose")
    tower(x)
    assert list(maps) == NAMES[:2]
    assert all(layer.recorder is None for layer in tower.modules() if isinstance(layer, Attention))


def test_gradients_flow_through_recorded_maps():
    """A loss on a map reaches the weights that made it, as it does through PyTorch's."""
    x, layer = torch.randn(B, N, 12, requires_grad=True), Attention(12, H)
    with record_attention(layer) as maps:
        layer(x)
    _, expected = pytorch(layer, x, x)
    wanted = torch.autograd.grad(expected[..., 0].square().sum(), [x, layer.query.weight, layer.key.weight])
    got = torch.autograd.grad(maps[""][..., 0].square().sum(), [x, layer.query.weight, layer.key.weight])
    for ours, theirs in zip(got, wanted, strict=True):
        assert theirs.abs().max() > 1e-3
        close(ours, theirs)


def test_the_output_has_a_gradient_with_respect_to_recorded_maps():
    """Attribution needs how much a score would change with each weight: here output · gradient, in closed form."""
    x, layer = torch.randn(B, N, 12), Attention(12, H)
    with record_attention(layer) as maps:
        output = layer(x)
    (gradient,) = torch.autograd.grad(output.sum(), maps[""])
    toward = rearrange(layer.output.weight.sum(0), "(h k) -> h k", h=H)
    values = rearrange(layer.value(x), "b n (h k) -> b h n k", h=H)
    close(gradient, torch.einsum("hk,bhnk->bhn", toward, values)[:, :, None].expand(B, H, N, N))


def test_recorded_maps_hold_no_dropout():
    x, layer = torch.randn(B, N, 12), Attention(12, H, dropout=0.9)
    with record_attention(layer) as maps:
        outputs = layer(x), layer(x)
    assert torch.equal(maps[""], maps["#2"])
    assert not torch.equal(*outputs)
    layer.eval()
    with record_attention(layer):
        close(layer(x), layer(x), 1e-6)


def test_a_model_without_attention_cannot_be_recorded():
    with pytest.raises(ValueError, match="Linear has no mmlearn Attention"), record_attention(nn.Linear(2, 2)):
        pass
