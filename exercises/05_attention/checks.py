"""Tokens and attention: what each function must do, told one property at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

from mmlearn.exercises import agreement, by_hand, case, expect, expect_close, expect_tensor, expect_trains, near, task
from mmlearn.exercises.inputs import between, some_of
from mmlearn.layers import attention, attention_weights, patchify, select_tokens, sinusoidal_positions

# Tokens.


@task(
    select_tokens,
    difficulty=1,
    minutes=5,
    example=by_hand(
        torch.arange(12.0).view(2, 3, 2), torch.tensor([2, 0]), gives=torch.tensor([[4.0, 5.0], [6.0, 7.0]])
    ),
)
def check_select_tokens(function: Callable) -> None:
    """One token a row, each at its own position."""
    b, n, d = 4, 6, 5
    x, position = torch.randn(b, n, d), torch.randperm(n)[:b]
    x[..., 0], x[..., 1] = torch.arange(b)[:, None], torch.arange(n)  # each token says where it is
    got = expect_tensor(function(x, position))
    expect(
        got.shape != (b, b, d),
        "Row i must give its token at position[i] only, not the tokens at all b positions.",
        "x[:, position] pairs every row with every position; index the rows too: x[torch.arange(b), position].",
    )
    expect_tensor(got, (b, d))
    expect(
        near(got[:, 0], torch.arange(b)),
        f"Row i must come from row i; these come from rows {got[:, 0].round(decimals=2).tolist()}.",
        "the first index is the row: torch.arange(b).",
    )
    expect(
        near(got[:, 1], position),
        f"At positions {position.tolist()} it must take those tokens; it took {got[:, 1].round(decimals=2).tolist()}.",
        "positions count from 0, and each row has its own.",
    )
    expect_close(got, select_tokens(x, position), "The whole token must come back.", "all d features of it.")
    expect_trains(function, x, fixed=(position,), like=select_tokens)


@task(
    patchify,
    difficulty=2,
    minutes=10,
    example=by_hand(
        torch.arange(8.0).view(1, 1, 2, 4), 2, gives=torch.tensor([[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]])
    ),
)
def check_patchify(function: Callable) -> None:
    """Patches in reading order; channel first, then row, then column within each."""
    image, size = torch.rand(2, 3, 6, 9), 3  # two rows of three patches
    same = agreement(function, patchify)
    got = expect_tensor(function(image, size))
    expect(
        got.shape != (2, 27, 6),
        "Patches must come before their pixels: (b, p, c·size²).",
        "F.unfold puts the pixels first; transpose its last two axes.",
    )
    expect_tensor(got, (2, 6, 27))
    first, second = image[..., :3, :3].flatten(1), image[..., :3, 3:6].flatten(1)
    expect(
        near(got[:, 0].sort().values, first.sort().values),
        "The first patch must hold the pixels of the top left square, of all channels.",
        "a reshape alone cuts a list of pixels; split height into (row y), width into (column x), and put y, x last.",
    )
    expect(
        near(got[:, 1].sort().values, second.sort().values),
        "Patches must come row by row, as one reads: the second lies right of the first.",
        "the order of the patches is (row column), row outside.",
    )
    expect(
        near(got[:, 0, :9].sort().values, first[:, :9].sort().values),
        "Within a patch, all pixels of one channel must come before the next channel.",
        "the order within a patch is (c y x), c outside.",
    )
    rows = "Within a channel, pixels must come row by row."
    expect(near(got[:, 0], first), rows, "the order within a patch is (c y x), x inside.")
    same((image, size), "All patches must be cut as the first is.", "try a picture of 4 × 6 pixels.")
    with case("A picture of 7 × 11 pixels in patches of 3"):
        image = torch.rand(2, 1, 7, 11)
        property = "Pixels beyond the last whole patch must be left out."
        hint = "keep rows·size × columns·size pixels, from the top left corner."
        expect(expect_tensor(function(image, size)).shape == (2, 6, 9), property, hint)
        same((image, size), property, hint)


@task(
    sinusoidal_positions,
    difficulty=2,
    minutes=10,
    example=by_hand(2, 4, gives=torch.tensor([[0.0, 1.0, 0.0, 1.0], [0.841, 0.540, 0.01, 1.0]])),
)
def check_sinusoidal_positions(function: Callable) -> None:
    """Sine and cosine in turn, the same angle for a pair, later pairs slower."""
    length, width = 20, 2 * between(3, 8)
    got = expect_tensor(function(length, width), (length, width))
    start = got[0]
    expect(
        near(start.sort().values, torch.arange(width) >= width // 2),
        "Position 0 must have angle 0: each sine 0, each cosine 1.",
        "positions count from 0: torch.arange(length).",
    )
    expect(not near(start, (torch.arange(width) + 1) % 2), "The sine must come first in each pair.", "2i is the sine.")
    expect(
        near(start, torch.arange(width) % 2),
        "Sines and cosines must take turns: sine at feature 2i, cosine at 2i + 1.",
        "torch.cat puts all sines first; interleave instead: rearrange([sin, cos], 'pair l half -> l (half pair)').",
    )
    expect(
        near(got[:, 0::2].square() + got[:, 1::2].square(), 1.0),
        "The sine and the cosine of a pair must have the same angle, so that their squares sum to 1.",
        "i counts pairs: features 2i and 2i + 1 share the exponent 2i/d.",
    )
    expect(
        near(got[:, 0], torch.arange(length).sin()),
        "The first pair must turn by one radian a position.",
        "the exponent of pair 0 is 0, and 10000⁰ = 1.",
    )
    turned = torch.atan2(got[1, 0::2], got[1, 1::2])  # each pair's angle at position 1
    expect(
        (turned > 0).all() and (turned.diff() < 0).all(),
        "The later the pair, the slower it must turn.",
        "divide the position by 10000^(2i/d), do not multiply.",
    )
    agreement(function, sinusoidal_positions)(
        (length, width),
        "Pair i must turn by 10000^(-2i/d) radians a position, d being the width.",
        "torch.arange(0, d, 2) is 2i already.",
    )


# Attention.


def expect_scaled(weights: Tensor, query: Tensor, key: Tensor) -> None:
    """Read off the weights by what their scores were divided, and fail unless it is √k."""
    scores = query @ key.mT
    scores, logs = (x - x.mean(-1, keepdim=True) for x in (scores, weights.log()))
    divisor, root = scores.square().sum() / (scores * logs).sum(), query.shape[-1] ** 0.5
    explained = torch.allclose(scores / divisor, logs, atol=1e-3)
    expect(
        not explained or abs(divisor - root) < 1e-3 * root,
        f"Scores must be divided by √k = {root:.2f}; these are divided by {divisor:.2f}.",
        "k is the width of a head, query.shape[-1], and it goes under a root.",
    )


LN2 = torch.tensor([0.0, 0.0, 2.0]).log().clamp(min=0).view(1, 1, 3, 1)  # keys of the example: scores 0, 0, ln 2


@task(
    attention_weights,
    difficulty=3,
    minutes=20,
    example=by_hand(torch.ones(1, 1, 1, 1), LN2, gives=torch.tensor([[[[0.25, 0.25, 0.5]]]])),
)
def check_attention_weights(function: Callable) -> None:
    """A softmax of scaled scores over the keys that may be attended."""
    b, h, q, n, k = 2, 3, 5, 7, 4
    query, key = torch.randn(b, h, q, k) / 2, torch.randn(b, h, n, k) / 2
    same = agreement(function, attention_weights)
    weights = expect_tensor(function(query, key), (b, h, q, n))
    expect((weights > 0).all(), "Weights must be positive.", "scores become weights by a softmax.")
    over_keys, axis = "The weights of a query must sum to 1 over its keys", "the last axis is the keys."
    expect(not near(weights.sum(-2), 1.0), f"{over_keys}; these sum to 1 over the queries.", axis)
    expect(not near(weights.sum(1), 1.0), f"{over_keys}; these sum to 1 over the heads.", axis)
    expect(near(weights.sum(-1), 1.0), f"{over_keys}.", "softmax over the last axis.")
    expect_scaled(weights, query, key)
    same(
        (query, key),
        "The weights must be softmax(Q Kᵀ / √k).",
        "query @ key.transpose(-2, -1) has a score for each query and key.",
    )
    _check_large(function, attention_weights, query, key)
    _check_mask(function, query, torch.randn(b, h, q, k) / 2)
    _check_causal(function, query, torch.randn(b, h, q, k) / 2)
    _check_hidden(function, attention_weights, query, key)
    _check_both(function, attention_weights, query, key)
    expect_trains(function, query, key, like=attention_weights)
    with case("Where a query may attend nothing"):
        expect_trains(function, query, key, fixed=(torch.arange(b)[:, None].expand(b, n) > 0,), like=attention_weights)


def _check_large(function: Callable, reference: Callable, query: Tensor, key: Tensor, *value: Tensor) -> None:
    """Scores of many hundreds."""
    shape = reference(query, key, *value).shape
    with case("Scores of many hundreds"):
        got = expect_tensor(function(1000 * query, key, *value), shape)
        wanted = reference(1000 * query, key, *value)
        hint = "softmax subtracts the maximum itself: clamp no score."
        expect_close(got, wanted, "They must count as they are.", hint, tolerance=1e-2)


def _check_hidden(function: Callable, reference: Callable, query: Tensor, key: Tensor, *value: Tensor) -> None:
    """A hidden key whose score is far above all others."""
    with case("A hidden key whose score is hundreds above all others"):
        query, key = query.clone(), key.clone()
        query[..., 0], key[:, :, 0, 0] = 1, 1000
        mask = (torch.arange(key.shape[2]) > 0).expand(len(key), -1)
        agreement(function, reference)(
            (query, key, *value, mask),
            "The real keys must share the whole weight.",
            "mask the scores before the softmax; after it the weights of the others are 0 already.",
        )


def _check_both(function: Callable, reference: Callable, query: Tensor, key: Tensor, *value: Tensor) -> None:
    """A mask and causal, which may leave a query nothing."""
    b, _, n, _ = key.shape
    same, mask = agreement(function, reference), (torch.arange(n) > 0).expand(b, n)
    with case("A mask and causal together"):
        same((query, key, *value, mask, True), "Only keys that both allow may get weight.", "join them with &.")
    with case("A mask and causal that together leave a query nothing"):
        square = (torch.randn(*key.shape[:2], n, key.shape[3]), key, *value)
        property = "It must get zeros."
        same((*square, mask, True), property, "multiply the weights by what both allow, not by the mask alone.")


def _check_mask(function: Callable, query: Tensor, key: Tensor) -> None:
    b, h, n, _ = key.shape
    mask = some_of(b, n, real=3)
    with case("With a mask (b, n)"):
        weights = expect_tensor(function(query, key, mask), (b, h, n, n))
    visible = mask[:, None, None].expand_as(weights)
    expect(
        not near(weights[visible], 0.0),
        "True must mean that a key may be attended; here the keys marked True get nothing.",
        "fill the scores where the mask is False: masked_fill(~mask, …).",
    )
    expect(
        not near(weights.sum(-1)[~mask[:, None].expand(b, h, n)], 0.0),
        "A mask (b, n) must hide keys; this one hides queries.",
        "scores are (b, h, q, n): mask[:, None, None, :] lies along the keys.",
    )
    expect(
        near(weights[~visible], 0.0),
        "A masked key must get weight 0.",
        "a score of 0 still has weight e⁰; put a very negative score there before the softmax.",
    )
    expect(
        near(weights.sum(-1), 1.0),
        "With a mask, the real keys must share the whole weight.",
        "mask the scores before the softmax, not only the weights after it.",
    )
    mask[0] = False
    weights = expect_tensor(function(query, key, mask), (b, h, n, n), finite=False)
    expect(
        near(weights[0], 0.0),
        "A query that may attend nothing must get zeros, not NaN and not equal shares.",
        "fill with the lowest finite number instead of -inf, and multiply by the mask after the softmax.",
    )
    expect_close(weights, attention_weights(query, key, mask), "Other rows must not change.", "mask row by row.")


LAST = (
    "The last query must stand at the last key and see them all.",
    "a triangle starts at the first key; with q queries and n keys shift it by n - q: tril(n - q).",
)


def _check_causal(function: Callable, query: Tensor, key: Tensor) -> None:
    b, h, n, _ = key.shape
    same = agreement(function, attention_weights)
    with case("With causal"):
        weights = expect_tensor(function(query, key, causal=True), (b, h, n, n), finite=False).nan_to_num()
        earlier = torch.ones(n, n, dtype=torch.bool).tril(-1)
        expect(
            not near(weights[..., earlier], 0.0),
            "A query must see earlier keys; this one sees later ones only.",
            "tril keeps the lower triangle, where the key comes before the query.",
        )
        expect(near(weights[..., earlier.T], 0.0), "No query may see a later key.", "hide the upper triangle.")
        own = weights.diagonal(dim1=-2, dim2=-1) > 0
        expect(own.all(), "A query must see its own position.", "keep the diagonal: tril(), not tril(-1).")
        same((query, key), *LAST, causal=True)
    with case(f"With causal, 2 queries and {n} keys"):
        same((query[:, :, -2:], key), *LAST, causal=True)


AXES = {
    "(b, n)": "mask[:, None, None, :] gives it axes of length 1 for heads and queries.",
    "(b, q, n)": "mask[:, None] gives it an axis of length 1 for heads.",
    "(b, h, q, n)": "it has all axes already.",
}


@task(
    attention,
    difficulty=3,
    minutes=15,
    example=by_hand(
        torch.ones(1, 1, 1, 1),
        LN2,
        torch.tensor([[[[4.0, 0.0], [0.0, 4.0], [2.0, 2.0]]]]),
        gives=torch.tensor([[[[2.0, 2.0]]]]),
    ),
)
def check_attention(function: Callable) -> None:
    """A weighted mean of values; every form of mask; nothing to attend; queries that come last."""
    b, h, q, n, k, width = 2, 3, 4, 6, 9, 5
    query, key, value = torch.randn(b, h, q, k) / 2, torch.randn(b, h, n, k) / 2, torch.randn(b, h, n, width)
    same = agreement(function, attention)
    expect_tensor(function(query, key, value), (b, h, q, width))
    alike = value[:, :, :1].expand(b, h, n, width)
    expect(
        near(function(query, key, alike), alike[:, :, :q]),
        "Where all values are alike, every query must get that value: the result is a weighted mean.",
        "weights of a query sum to 1 over the keys.",
    )
    numbered = torch.eye(n).expand(b, h, n, n)  # value j is 1 at feature j only: the result is the weights themselves
    expect_scaled(expect_tensor(function(query, key, numbered), (b, h, q, n)), query, key)
    same((query, key, value), "It must be softmax(Q Kᵀ / √k) V.", "your attention_weights, times the values.")
    for form, shape in zip(AXES, ((b, n), (b, q, n), (b, h, q, n))):
        mask = some_of(*shape, real=4)
        with case(f"With a mask {form}"):
            got = expect_tensor(function(query, key, value, mask), (b, h, q, width))
            expect(
                not near(got, attention(query, key, value, ~mask)),
                "True must mean that a key may be attended; here it means the opposite.",
                "F.scaled_dot_product_attention takes True as may attend, nn.MultiheadAttention as hidden.",
            )
            same((query, key, value, mask), "Each query must read exactly the keys that its mask allows.", AXES[form])
    _check_large(function, attention, query, key, value)
    _check_hidden(function, attention, query, key, value)
    _check_nothing(function, query, key, value)
    _check_queries_last(same, function, query, key, value)
    _check_both(function, attention, query, key, value)


def _check_nothing(function: Callable, query: Tensor, key: Tensor, value: Tensor) -> None:
    mask = torch.ones(query.shape[0], key.shape[2], dtype=torch.bool)
    mask[0] = False
    got = expect_tensor(function(query, key, value, mask), (*query.shape[:-1], value.shape[-1]), finite=False)
    property = "A query that may attend nothing must get zeros, not NaN and not the mean of all values."
    expect(near(got[0], 0.0), property, "multiply the weights by the mask after the softmax.")
    expect_trains(function, query, key, value, like=attention)
    with case("Where a query may attend nothing"):  # nan_to_num mends the result, not the gradient
        expect_trains(function, query, key, value, fixed=(mask,), like=attention)
    each = torch.ones(len(key), query.shape[2], key.shape[2], dtype=torch.bool)
    each[0, 1] = each[1, 2, :3] = False
    several = each[:, None].repeat(1, query.shape[1], 1, 1)
    several[1, 0, 3] = False
    for form, mask in (("(b, q, n)", each), ("(b, h, q, n)", several)):
        with case(f"With a mask {form} that leaves one query nothing"):
            hint = "multiply the weights by the mask after the softmax, whichever axes it has."
            same = agreement(function, attention)
            same((query, key, value, mask), "That query must get zeros, and the others what they are allowed.", hint)
            expect_trains(function, query, key, value, fixed=(mask,), like=attention)


def _check_queries_last(same: Callable, function: Callable, query: Tensor, key: Tensor, value: Tensor) -> None:
    q, n = query.shape[2], key.shape[2]
    with case("With causal"):
        short = query, key[:, :, :q], value[:, :, :q]
        first = expect_tensor(function(*short, causal=True))[:, :, 0]
        expect_close(first, value[:, :, 0], "The first query may see the first key only.", "hide later keys.")
        diagonal = "tril() keeps the diagonal and what lies below."
        same(short, "Each query must see its own key and all before it.", diagonal, causal=True)
    with case(f"With causal, {q} queries and {n} keys"):
        same((query, key, value), *LAST, causal=True)
