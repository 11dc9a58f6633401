"""What changed in language models since GPT-2: what each function must do, told one property at a time."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_boolean,
    expect_close,
    expect_not,
    expect_number,
    expect_parts,
    expect_tensor,
    expect_trains,
    task,
)
from mmlearn.exercises.inputs import between, evenly, numbers
from mmlearn.layers import attention, rotate

# An MLP with a gate.


def swiglu_width(width: int, multiple: int) -> int:
    """How many features an MLP with a gate has: 2/3 of four times the width, rounded up to a multiple."""
    return -(-8 * width // (3 * multiple)) * multiple


@task(swiglu_width, difficulty=1, minutes=5, example=by_hand(4096, 256, gives=11_008))
def check_swiglu_width(function: Callable) -> None:
    """As many parameters as an MLP of two matrices has, and less than a multiple more."""
    multiple = 2 ** between(5, 8)
    fits, more = 3 * multiple * between(1, 9), 3 * between(1, multiple // 24)  # in which 8/3 is a whole number
    exact, got = 8 * fits // 3, function(fits, multiple)
    hint = "-(-a // b) rounds up, and so does math.ceil(a / b)."
    property = "Where 2/3 of 4 d is a multiple already, it must be that, and nothing is added."
    expect_number(got, exact, property, "2/3 · 4 · width; (a // b + 1) · b is too much where b divides a.")
    above = function(fits + more, multiple)
    property = f"It must be a multiple of {multiple}: processors like whole blocks."
    expect_number(above % multiple, 0, property, "count the multiples first, then multiply.")
    property = "It must be rounded up, or the MLP has fewer parameters than GPT-2's: just above a multiple, the next."
    expect_number(above, exact + multiple, property, hint)
    for width in (between(100, 5000) for _ in range(3)):
        wanted = swiglu_width(width, multiple)
        expect_number(function(width, multiple), wanted, "Any width must do, not multiples of 3 alone.", hint)


# Several queries for a key.


def grouped_attention(
    query: Float[Tensor, "b h q k"], key: Float[Tensor, "b kv n k"], value: Float[Tensor, "b kv n k"]
) -> Float[Tensor, "b h q k"]:
    """Attention in which neighbouring query heads share a head of keys and values."""
    group = query.shape[1] // key.shape[1]
    return attention(query, key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1))


@task(
    grouped_attention,
    difficulty=2,
    minutes=15,
    example=by_hand(
        torch.zeros(1, 4, 1, 1),
        torch.ones(1, 2, 2, 1),
        torch.tensor([[2.0, 4.0], [10.0, 20.0]])[None, ..., None],
        gives=torch.tensor([3.0, 3.0, 15.0, 15.0])[None, :, None, None],
    ),
)
def check_grouped_attention(function: Callable) -> None:
    """Query head i attends to key head i // g, and the values are those of the same head."""
    b, q, n, k, kv, group = 2, between(3, 4), between(5, 7), between(4, 6), between(2, 3), between(2, 3)
    query, key, value = (1.5 * numbers(*shape, k) for shape in ((b, kv * group, q), (b, kv, n), (b, kv, n)))
    got, same = expect_tensor(function(query, key, value), query.shape), agreement(function, grouped_attention)
    keys, values = (x.repeat_interleave(group, dim=1) for x in (key, value))
    in_turn, values_in_turn = (x.repeat(1, group, 1, 1) for x in (key, value))
    hint = "repeat_interleave(g, dim=1) says 0 0 1 1; repeat says 0 1 0 1."
    property = "Neighbouring query heads must share a key head, i // g; here head i reads key head i % h_kv."
    expect_not(got, attention(query, in_turn, values_in_turn), property, hint)
    property = "Values must be those of the key's own head; here they come from another."
    crossed = attention(query, keys, values_in_turn), attention(query, in_turn, values)
    expect_not(got, crossed, property, "repeat values in the way in which you repeat keys.")
    property = "Each group must have a key head of its own; here all query heads read one."
    first, mean = (key[:, :1], value[:, :1]), (key.mean(1, True), value.mean(1, True))
    expect_not(
        got,
        (grouped_attention(query, *first), grouped_attention(query, *mean)),
        property,
        "h_kv = 1 would be multi-query attention; here are more.",
    )
    unscaled = (query @ keys.mT).softmax(-1) @ values
    expect_not(got, unscaled, "Scores must be divided by √k; here they are not.", "k is the width of a head.")
    property = "Query heads must stay apart, though they share keys; here a group has one mean."
    together = [one.unflatten(1, (kv, group)).mean(2).repeat_interleave(group, dim=1) for one in (query, got)]
    expect_not(
        got,
        (attention(together[0], keys, values), together[1]),
        property,
        "it is the keys that are few; queries are as many as ever.",
    )
    same((query, key, value), "It must be softmax(Qᵢ Kᵀ / √k) V, with K and V of head i // g.", hint)
    with case("With as many key heads as query heads"):
        same((query, keys, values), "It must be ordinary attention.", "g is h / h_kv, here 1.")
    with case("With one key head"):
        same((query, *first), "All query heads must share it.", "g is h / h_kv, here h.")
    expect_trains(function, query, key, value, like=grouped_attention)


# A window that slides.


def window_mask(queries: int, keys: int, window: int) -> Bool[Tensor, "q n"]:
    """Which keys each of the last queries sees: its own and those before it, ``window`` of them at most."""
    back = torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)  # (q, n): how far back a key lies
    return (back >= 0) & (back < window)


@task(
    window_mask,
    difficulty=2,
    minutes=10,
    example=by_hand(2, 4, 2, gives=torch.tensor([[0, 1, 1, 0], [0, 0, 1, 1]]) > 0),
)
def check_window_mask(function: Callable) -> None:
    """A band along the diagonal, as wide as the window, which counts the token itself; and its last rows alone."""
    n, w = between(9, 12), between(3, 4)

    def ask(queries: int, window: int) -> Tensor:
        return expect_boolean(function(queries, n, window), (queries, n))

    got, wanted = ask(n, w), window_mask(n, n, w)
    property = "Rows must be those who look, columns what they see; here it is the other way."
    expect(not torch.equal(got, wanted.mT), property, "[i, j] says whether token i sees token j.")
    expect(got.diagonal().all(), "Each token must see itself.", "j = i is within the window.")
    expect(not got.triu(1).any(), "No token must see a later one.", "j <= i, besides the window.")
    most = int(got.sum(1).max())
    property = f"A window of {w} must show {w} tokens, the token's own included; here up to {most} are seen."
    expect(most == w, property, "i - j < window: with <= it is one more; and it is a limit.")
    property = f"Each token must see the {w} tokens that end with itself: the window slides with it."
    expect(torch.equal(got, wanted), property, "i - w < j <= i. Blocks of w tokens would not slide.")
    with case("With fewer queries than keys"):
        property = "They must be the last ones, as with a cache: the last query stands at the last key."
        hint = "query i stands at position keys - queries + i."
        expect(torch.equal(ask(3, w), wanted[-3:]), property, hint)
        expect(torch.equal(ask(1, w), wanted[-1:]), property, hint)
    with case("With a window that is longer than the text"):
        property = "It must be the causal mask."
        expect(torch.equal(ask(n, n + between(1, 4)), torch.ones(n, n).tril() > 0), property, "it forbids nothing.")
    with case("With a window of 1"):
        expect(torch.equal(ask(n, 1), torch.eye(n) > 0), "Each token must see itself alone.", "i - j < 1.")


# Positions that turn.


@task(
    rotate,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]]),
        torch.tensor([[math.pi / 2, math.pi]]),
        gives=torch.tensor([[[[-3.0, -2.0, 1.0, -4.0]]]]),
    ),
)
def check_rotate(function: Callable) -> None:
    """Pairs of features turn by the angle of their position, and scores tell how far apart two positions are."""
    b, n, half = between(2, 3), between(8, 10), between(2, 4)
    x, angle = numbers(b, b, n, 2 * half), torch.arange(n)[:, None] * (0.5 + 0.5 * evenly(half))
    got, same = expect_tensor(function(x, angle), x.shape), agreement(function, rotate, tolerance=1e-4)
    apart = torch.cat([x[..., ::2], x[..., 1::2]], -1)
    neighbours = torch.stack(rotate(apart, angle).chunk(2, -1), -1).flatten(-2)
    property = "Feature i must turn with feature i + k/2; here it turns with its neighbour."
    expect_not(got, neighbours, property, "first, second = x.chunk(2, dim=-1). RoFormer's paper pairs neighbours.")
    property = "Pairs must turn from the first feature to the second; here they turn the other way."
    expect_not(got, rotate(x, -angle), property, "the minus stands in the first half.")
    lengths = (y.unflatten(-1, (2, half)).norm(dim=-2) for y in (got, x))
    property = "A pair must keep its length: it is turned and nothing else."
    expect_close(*lengths, property, "cos and sin of one angle, and one minus.", tolerance=1e-4)
    property = "Where the angle is 0, nothing must change."
    expect_close(got[:, :, 0], x[:, :, 0], property, "angle (n, k/2) has a row for each position.")
    _expect_relative(function, x, angle)
    same((x, angle), "It must be (x₁ cos - x₂ sin, x₂ cos + x₁ sin).", "angles are in radians, one for each pair.")
    with case("Where each row has positions of its own"):
        own = angle + 0.7 * torch.arange(b)[:, None, None]  # (b, n, k/2)
        property = "Row b of the batch must turn by angle[b], in all of its heads."
        same((x, own), property, "unsqueeze(-3) puts an axis for heads before the last two.")
    expect_trains(function, x, like=rotate, fixed=(angle,))


def _expect_relative(function: Callable, x: Tensor, angle: Tensor) -> None:
    """The same query and the same key at all positions."""
    query, key = (function(x[:, :, i : i + 1].expand_as(x).clone(), angle) for i in (1, 2))
    scores = query @ key.mT  # (b, h, n, n)
    property = "The score of a query with a key must change with the distance between them."
    expect(not torch.allclose(scores, scores[..., :1], atol=1e-4), property, "turn x by its angle.")
    property = "The score must depend on the distance alone: that of 3 with 1 is that of 4 with 2."
    hint = "both must turn by angles that grow evenly; sin has a sign, which a root does not know."
    expect_close(scores[..., 1:, 1:], scores[..., :-1, :-1], property, hint, tolerance=1e-3)


# A cache that is cut.


def window_step(
    query: Float[Tensor, "b h 1 k"],
    key: Float[Tensor, "b h 1 k"],
    value: Float[Tensor, "b h 1 k"],
    kept_key: Float[Tensor, "b h m k"],
    kept_value: Float[Tensor, "b h m k"],
    window: int,
) -> tuple[Float[Tensor, "b h 1 k"], Float[Tensor, "b h n k"], Float[Tensor, "b h n k"]]:
    """What a new token reads of its window, and the keys and values of this window, to be kept."""
    pairs = (kept_key, key), (kept_value, value)
    keys, values = (torch.cat(pair, dim=2)[:, :, -window:] for pair in pairs)
    return attention(query, keys, values), keys, values


def _numbers_of(*one_head: float) -> Tensor:
    return torch.tensor(one_head)[None, None, :, None]


@task(
    window_step,
    difficulty=3,
    minutes=15,
    example=by_hand(
        *map(_numbers_of, (1.0, math.log(3), 8.0)),
        _numbers_of(5.0, 0.0),
        _numbers_of(9.0, 4.0),
        2,
        gives=(_numbers_of(7.0), _numbers_of(0.0, math.log(3)), _numbers_of(4.0, 8.0)),
    ),
)
def check_window_step(function: Callable) -> None:
    """The last row of attention over the whole text, through a window, from a cache that grows no longer than that."""
    b, h, k, w = 2, between(2, 3), between(4, 6), between(3, 5)
    n = w + between(4, 6)
    text = tuple(1.5 * numbers(b, h, n, k) for _ in range(3))
    whole = attention(*text, window_mask(n, n, w)[None], causal=True)
    _check_full_cache(function, text, w)
    with case("While the text is shorter than the window"):
        new, kept = (part[:, :, 1:2] for part in text), (part[:, :, :1] for part in text[1:])
        output, keys, values = _three(function(*new, *kept, w))
        for got, wanted in ((keys, text[1]), (values, text[2])):
            property = "Nothing must be cut; here two tokens leave another number."
            expect(got.shape[2] == 2, property, "cut to the last window, not off the first.")
            expect_close(got, wanted[:, :, :2], "All must be kept, in the order of the text.", "torch.cat, dim=2.")
    with case("Token by token"):
        caches, said = (text[1][:, :, :0], text[2][:, :, :0]), []
        for i in range(n):
            one, *caches = _three(function(*(part[:, :, i : i + 1] for part in text), *caches, w))
            expect(caches[0].shape[2] <= w, f"No more than {w} tokens must be kept.", "cut what you return as well.")
            said.append(one)
        property = "Step i must say what row i of attention over the whole text says, through the window."
        expect_close(torch.cat(said, 2), whole, property, "what one step returns the next one gets.", tolerance=1e-4)
    with case("With a window of 1"):
        output, keys, _ = _three(function(*(part[:, :, -1:] for part in text), *(x[:, :, -2:-1] for x in text[1:]), 1))
        expect_close(output, text[2][:, :, -1:], "A token must read its own value alone.", "its own counts as one.")
        expect_tensor(keys, (b, h, 1, k))


def _three(got: tuple) -> tuple:
    return tuple(map(expect_tensor, expect_parts(got, "output", "keys", "values")))


def _check_full_cache(function: Callable, text: tuple[Tensor, ...], w: int) -> None:
    """A token behind as many as the window shows."""
    query, new = text[0][:, :, w : w + 1], [part[:, :, w : w + 1] for part in text[1:]]
    before, every = ([part[:, :, :end] for part in text[1:]] for end in (w, w + 1))
    output, *caches = expect_parts(function(query, *new, *before, w), "output", "keys", "values")
    output = expect_tensor(output, query.shape)
    for name, cache, one in zip(("keys", "values"), caches, every):
        cache = expect_tensor(cache)
        property = f"Of {w + 1} {name} the last {w} must be kept, the new one's included; here"
        expect(cache.shape != one.shape, f"{property} nothing is cut.", "[:, :, -window:].")
        expect(cache.shape != one[:, :, 2:].shape, f"{property} one too few is.", "[:, :, -window:].")
        expect_tensor(cache, one[:, :, 1:].shape)
        expect_not(cache, one[:, :, :-1], f"{property} the first are.", "the oldest falls out: [:, :, -window:].")
        property = f"The {name} must be the last {w}, in the order of the text, as they were."
        expect_close(
            cache, one[:, :, 1:], property, "torch.cat of what is kept and what is new, then [:, :, -window:]."
        )
    hint = "grow, cut, and then attend."
    property = f"The token must see {w} tokens, itself included; here it sees all {w + 1} that there are."
    expect_not(output, attention(query, *every), property, hint)
    property = "The token must see itself; here it sees only what was kept."
    expect_not(output, (attention(query, *before), attention(query, *(x[:, :, 1:] for x in before))), property, hint)
    last = [part[:, :, 1:] for part in every]
    property = "The token must see its whole window; here one token is missing."
    expect_not(output, attention(query, *(x[:, :, 1:] for x in last)), property, "a window counts the token itself.")
    property = "Scores must be divided by √k; here they are not."
    expect_not(output, (query @ last[0].mT).softmax(-1) @ last[1], property, "k is the width of a head.")
    property = "It must be the last row of attention over the whole text, through the window."
    expect_close(output, attention(query, *last), property, hint, tolerance=1e-4)


# A norm that only scales, and back.


def rms_norm_backward(
    x: Float[Tensor, "*n d"], weight: Float[Tensor, "d"], upstream: Float[Tensor, "*n d"], epsilon: float = 1e-5
) -> tuple[Float[Tensor, "*n d"], Float[Tensor, "*n d"], Float[Tensor, "d"]]:
    """What the norm gives, and the gradients of x and of the weight, where ``upstream`` is that of what it gives."""
    with torch.enable_grad():
        leaves = [one.detach().clone().requires_grad_() for one in (x, weight)]
        y = F.rms_norm(leaves[0], weight.shape, leaves[1], epsilon)
        return y.detach(), *torch.autograd.grad(y, leaves, upstream)


@task(
    rms_norm_backward,
    difficulty=4,
    minutes=25,
    example=by_hand(
        torch.tensor([[1.0, 7.0]]), torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.0]]), 0.0,
        gives=(torch.tensor([[0.2, 2.8]]), torch.tensor([[0.196, -0.028]]), torch.tensor([0.2, 0.0])),
    ),
)  # fmt: skip
def check_rms_norm_backward(function: Callable) -> None:
    """Each row by its own root mean square; the weight's gradient is a sum over rows; that of x does not stretch x."""
    b, t, d = 2, between(3, 4), between(5, 8)
    x, weight, upstream, epsilon = 2 * numbers(b, t, d) + 1, numbers(d), numbers(b, t, d), 0.1
    got = expect_parts(function(x, weight, upstream, epsilon), "output", "gradient of x", "gradient of the weight")
    wanted = rms_norm_backward(x, weight, upstream, epsilon)
    y, back, scale = (expect_tensor(one, right.shape) for one, right in zip(got, wanted))
    property = "Only scaling is asked; here the mean is taken off, as in layer norm."
    expect_not(y, F.layer_norm(x, (d,), weight, eps=epsilon), property, "no mean of x, only that of its squares.")
    root = (x.square().mean(-1, keepdim=True) + epsilon).sqrt()
    summed = weight * x / (x.square().sum(-1, keepdim=True) + epsilon).sqrt(), weight * F.normalize(x, dim=-1)
    expect_not(y, summed, "It must be the mean of squares, not their sum.", "mean(-1, keepdim=True).")
    outside = weight * x / (x.square().mean(-1, keepdim=True).sqrt() + epsilon)
    expect_not(y, outside, "ε must be added under the root; here it is added to it.", "(mean + epsilon).sqrt().")
    property = "The output must be g x / √(mean x² + ε)."
    expect_close(y, wanted[0], property, "the mean is over the last axis.", tolerance=1e-4)
    each = upstream * x / root  # (b, t, d)
    property = "Gradient of the weight: it must be a sum over all rows; here it is a mean."
    expect_not(scale, each.mean((0, 1)), property, "each use of g adds its share: sum.")
    property = "Gradient of the weight: x must be normalised in it; here it is x itself."
    expect_not(scale, (upstream * x).sum((0, 1)), property, "g multiplies x / r.")
    property = "Gradient of the weight: it must be the sum over rows of upstream · x / r."
    expect_close(scale, wanted[2], property, "y = g · (x / r), so that what multiplies g is x / r.", tolerance=1e-4)
    hint = "r depends on every feature of x: dr/dxᵢ = xᵢ / (d r), and d(1/r) = -dr / r²."
    property = "Gradient of x: r must not count as a constant; here it does."
    expect_not(back, weight * upstream / root, property, hint)
    plain = rms_norm_backward(x, torch.ones(d), upstream, epsilon)[1]
    expect_not(back, (plain, plain * weight), "Gradient of x: g must multiply upstream first.", "v = g · upstream.")
    with case("With ε = 0"):
        flat, way = x.flatten(0, 1), upstream.flatten(0, 1)
        y, back0, _ = expect_parts(
            function(flat, weight, way, 0.0), "output", "gradient of x", "gradient of the weight"
        )
        property = "The gradient must be at a right angle to x: a longer x gives the same output."
        expect_close(
            (flat * expect_tensor(back0, flat.shape)).sum(-1), torch.zeros(b * t), property, hint, tolerance=1e-3
        )
    property = "Gradient of x: it must be v / r - x · mean(v x) / r³, with v = g · upstream."
    expect_close(back, wanted[1], property, hint, tolerance=1e-4)
    with case("Without an epsilon"):
        small = 1e-3 * x
        for one, right in zip(function(small, weight, upstream), rms_norm_backward(small, weight, upstream)):
            expect_close(one, right, "It must be 1e-5.", "epsilon: float = 1e-5.", tolerance=1e-3)
