"""Captions from a convolutional and a recurrent network: what each part must do, told one property at a time."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_boolean,
    expect_close,
    expect_log,
    expect_not,
    expect_parts,
    expect_sure_and_wrong,
    expect_tensor,
    expect_trains,
    over,
    task,
)
from mmlearn.exercises.inputs import between, first_of, numbers, seeded
from mmlearn.objectives.rewards import until_end

Look = Callable[[Tensor], Tensor]  # weights of a feature map


# Words.


@task(
    until_end,
    difficulty=1,
    minutes=10,
    example=by_hand(torch.tensor([[5, 2, 7, 2]]), 2, gives=torch.tensor([[True, True, False, False]])),
)
def check_until_end(function: Callable) -> None:
    """All up to the first end token, which is written as well."""
    t, end = between(7, 9), between(2, 3)
    tokens = torch.full((4, t), 9)
    tokens[0, 2] = tokens[0, 4] = tokens[1, 0] = tokens[2, t - 1] = end
    tokens = tokens + 10 * torch.randint(1, 5, tokens.shape, generator=seeded()) * (tokens != end)
    got = expect_boolean(function(tokens, end), tokens.shape)
    first = "(tokens == end_token).cumsum(1), less the token's own, is 0 up to the first end token."
    ends = tokens == end
    expect(not torch.equal(got, ends.cumsum(1) == 0), "The end token is written, too; here it does not count.", first)
    expect(not torch.equal(got, ends.cumsum(1) - ends.long() < 2), "Nothing behind the first end is written.", first)
    expect(not torch.equal(got, ~ends), "Nothing behind the first end is written; here all but ends count.", first)
    last = ends.flip(1).cumsum(1).flip(1) > 0
    expect(not torch.equal(got, last | ~ends.any(1, keepdim=True)), "The first end counts; here the last does.", first)
    expect(got[3].all(), "Without an end token all is written.", first)
    expect(torch.equal(got, until_end(tokens, end)), "It must be all up to the first end token.", first)
    with case("With ids above 2²⁴"):
        many = torch.tensor([[2**24, 2**24 + 1, 2**24]])
        right = torch.equal(function(many, 2**24 + 1), until_end(many, 2**24 + 1))
        expect(right, "All up to the first end token is written.", "int64 as they are: float32 rounds them.")


def caption_loss(
    logits: Float[Tensor, "b t_and_1 v"], tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]
) -> Float[Tensor, ""]:
    """The loss of the library's ShowAndTell, whose logits after the picture are left out."""
    counts = mask[:, 1:]
    return F.cross_entropy(logits[:, 1:-1][counts], tokens[:, 1:][counts])


@task(
    caption_loss,
    difficulty=2,
    minutes=15,
    example=by_hand(
        torch.tensor([[[9.0, 0.0], [1.0986, 0.0], [0.0, 9.0]]]), torch.tensor([[1, 0]]), torch.tensor([[True, True]]),
        gives=0.2877,
    ),
)  # fmt: skip
def check_caption_loss(function: Callable) -> None:
    """The picture first, then the words: each word is asked from what was read before it."""
    b, t, v = 3, between(7, 9), between(11, 15)
    mask = first_of(t, [t, t - 2, t - 3])
    tokens = torch.randint(v, (b, t), generator=seeded())
    draws = [(numbers(b, t + 1, v), tokens, mask) for _ in range(3)]
    got = over(draws, function)

    def cost(logits: Callable, wanted: Tensor, counts: Tensor) -> Tensor:
        return torch.stack([F.cross_entropy(logits(z)[counts], wanted[counts]) for z, *_ in draws])

    after = "logits[:, 1:-1] stand behind tokens[:, :-1], and say tokens[:, 1:]."
    early = cost(lambda z: z[:, :-2], tokens[:, 1:], mask[:, 1:])
    expect_not(got, early, "The picture is read first, so logits stand one position later; here they do not.", after)
    own = cost(lambda z: z[:, 1:], tokens, mask), cost(lambda z: z[:, 2:], tokens[:, 1:], mask[:, 1:])
    expect_not(got, own, "Logits must say the next token; here they say the one that was just read.", after)
    start = cost(lambda z: z[:, :-1], tokens, mask)
    expect_not(got, start, "The start token is given, and must not be asked; here it is.", after)
    padded = cost(lambda z: z[:, 1:-1], tokens[:, 1:], mask[:, 1:] | True)
    expect_not(got, padded, "Padding must not count; here it does.", "take tokens where mask[:, 1:] is True.")
    late = cost(lambda z: z[:, 1:-1], tokens[:, 1:], mask[:, :-1])
    expect_not(got, late, "mask must be moved with the tokens; here it stays.", "mask[:, 1:].")
    total = cost(lambda z: z[:, 1:-1], tokens[:, 1:], mask[:, 1:]) * mask[:, 1:].sum()
    expect_not(got, total, "It must be the mean over words; here it is their sum.", "mean, not sum.")
    expect_log(function(torch.zeros(b, t + 1, v), tokens, mask), v, "v", "one mean over all words that count.")
    agreement(function, caption_loss)(draws, "It must be the mean cross-entropy of all words but the first.", after)
    expect_trains(function, draws[0][0], like=caption_loss, fixed=(tokens, mask))
    sure = 400 * F.one_hot((tokens + 1) % v, v).float()
    expect_sure_and_wrong(
        function, torch.cat([sure[:, :1], sure], 1).roll(-1, 1), like=caption_loss, fixed=(tokens, mask)
    )


# Where to look, and at which channels.


def channel_attention(
    features: Float[Tensor, "b c rows columns"],
    hidden: Float[Tensor, "b d"],
    key: Float[Tensor, "a"],
    bias: Float[Tensor, "a"],
    query: Float[Tensor, "a d"],
    score: Float[Tensor, "a"],
) -> Float[Tensor, "b c"]:
    """What the library's ChannelAttention computes with these weights."""
    keys = features.mean((2, 3))[..., None] * key + bias
    return ((keys + (hidden @ query.T)[:, None]).tanh() @ score).softmax(1)


@task(
    channel_attention,
    difficulty=2,
    minutes=15,
    example=by_hand(
        torch.tensor([[[[0.0, 1.0986]], [[0.0, 0.0]]]]), torch.tensor([[0.0]]), torch.tensor([1.0]),
        torch.tensor([0.0]), torch.tensor([[1.0]]), torch.tensor([2.1972]), gives=torch.tensor([[0.75, 0.25]]),
    ),
)  # fmt: skip
def check_channel_attention(function: Callable) -> None:
    """One weight for each channel, from its mean over positions and from what has been written."""
    b, c, d, a = between(3, 4), between(5, 6), between(7, 8), 9
    given = numbers(b, c, 2, 3), numbers(b, d), numbers(a), numbers(a), numbers(a, d), numbers(a)
    features, hidden, key, bias, query, score = given
    got = expect_tensor(function(*given), (b, c))
    ask, mean = (hidden @ query.T)[:, None], features.mean((2, 3))[..., None]
    whole = "softmax over channels of tanh(key · mean + bias + query h) · score."
    keys = mean * key + bias
    raw = (keys + ask).tanh() @ score
    expect_not(got, raw, "Weights of all channels must add up to 1; here these are scores.", "softmax(1) at the end.")
    expect_not(got, raw.sigmoid(), "Weights of all channels must add up to 1; here a sigmoid makes each.", whole)
    linear = ((keys + ask) @ score).softmax(1)
    expect_not(got, linear, "A tanh must stand before the score; here none does.", "without it h would not matter.")
    blind = (keys.tanh() @ score).softmax(1)
    inside = "add query h inside the tanh: softmax does not see what all channels have alike."
    expect_not(got, blind, "What was written must count; here h does not.", inside)
    highest = ((features.amax((2, 3))[..., None] * key + bias + ask).tanh() @ score).softmax(1)
    expect_not(got, highest, "A channel is its mean over positions; here it is its highest.", "features.mean((2, 3)).")
    bare = ((mean * key + ask).tanh() @ score).softmax(1)
    expect_not(got, bare, "The bias must be added; here it is left out.", whole)
    agreement(function, channel_attention)(given, "It must be the softmax over channels.", whole)
    expect_trains(function, *given, like=channel_attention)


def spatial_attention(
    features: Float[Tensor, "b c rows columns"],
    hidden: Float[Tensor, "b d"],
    key: Float[Tensor, "a c"],
    bias: Float[Tensor, "a"],
    query: Float[Tensor, "a d"],
    score: Float[Tensor, "a"],
) -> Float[Tensor, "b p"]:
    """What the library's SpatialAttention computes with these weights."""
    positions = features.flatten(2).mT
    return ((positions @ key.T + bias + (hidden @ query.T)[:, None]).tanh() @ score).softmax(1)


@task(
    spatial_attention,
    difficulty=3,
    minutes=15,
    example=by_hand(
        torch.tensor([[[[0.5493, 0.0]], [[5.0, 5.0]]]]), torch.tensor([[0.0]]), torch.tensor([[1.0, 0.0]]),
        torch.tensor([0.0]), torch.tensor([[1.0]]), torch.tensor([2.1972]), gives=torch.tensor([[0.75, 0.25]]),
    ),
)  # fmt: skip
def check_spatial_attention(function: Callable) -> None:
    """One weight for each position, from all channels there and from what has been written."""
    b, c, d, a, rows, columns = between(3, 4), between(5, 6), between(7, 8), 9, 2, 3
    given = numbers(b, c, rows, columns), numbers(b, d), numbers(a, c), numbers(a), numbers(a, d), numbers(a)
    features, hidden, key, bias, query, score = given
    got = expect_tensor(function(*given), (b, rows * columns))
    positions, ask = features.flatten(2).mT, (hidden @ query.T)[:, None]
    whole = "softmax over positions of tanh(key v + bias + query h) · score."
    raw = (positions @ key.T + bias + ask).tanh() @ score
    right = raw.softmax(1)
    expect_not(got, raw, "Weights of all positions must add up to 1; here these are scores.", "softmax(1) at the end.")
    expect_not(got, raw.sigmoid(), "Weights of all positions must add up to 1; here a sigmoid makes each.", whole)
    turned = right.view(b, rows, columns).mT.flatten(1)
    expect_not(got, turned, "Places must stand row by row; here they stand column by column.", "flatten(2).")
    mixed = ((features.reshape(b, -1, c) @ key.T + bias + ask).tanh() @ score).softmax(1)
    expect_not(got, mixed, "Channels of a position must stay together; here a reshape mixes them.", "flatten(2).mT.")
    blind = ((positions @ key.T + bias).tanh() @ score).softmax(1)
    expect_not(got, blind, "What was written must count; here h does not.", whole)
    linear = ((positions @ key.T + bias + ask) @ score).softmax(1)
    expect_not(got, linear, "A tanh must stand before the score; here none does.", "without it h would not matter.")
    agreement(function, spatial_attention)(given, "It must be the softmax over positions.", whole)
    expect_trains(function, *given, like=spatial_attention)


def in_order(
    features: Float[Tensor, "b c rows columns"], order: str, channel: Look, spatial: Look
) -> tuple[Float[Tensor, "b c rows columns"], Float[Tensor, "b p"]]:
    """What the library's ChannelSpatialAttention computes with these functions."""
    for kind in order.split("-"):
        if kind == "channel":
            features = features * channel(features)[:, :, None, None] * features.shape[1]
        else:
            where = spatial(features)
            features = features * where.view(-1, 1, *features.shape[2:]) * where.shape[1]
    return features, where


def _of_channels(features: Tensor) -> Tensor:
    """Weights that add up to 1, of channels, so that the example can be worked out by hand."""
    return F.normalize(features.abs().sum((2, 3)), p=1, dim=1)


def _of_positions(features: Tensor) -> Tensor:
    return F.normalize(features.abs().sum(1).flatten(1), p=1, dim=1)


@task(
    in_order,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([[[[1.0, 1.0]], [[2.0, 0.0]]]]), "channel-spatial", _of_channels, _of_positions,
        gives=(torch.tensor([[[[1.5, 0.5]], [[3.0, 0.0]]]]), torch.tensor([[0.75, 0.25]])),
    ),
)  # fmt: skip
def check_in_order(function: Callable) -> None:
    """Each looks at what the one before it left; even weights change nothing."""
    b, c, rows, columns = 2, between(4, 5), 2, between(3, 4)
    x, p = numbers(b, c, rows, columns), rows * columns
    w, u = numbers(c, c), numbers(c)

    def channel(features: Tensor) -> Tensor:
        return (features.mean((2, 3)) @ w).softmax(1)

    def spatial(features: Tensor) -> Tensor:
        return (features.flatten(2).mT @ u).softmax(1)

    def weighed(order: str, by_channel: int = c, by_position: int = p, same: bool = False) -> Tensor:
        y = x
        for kind in order.split("-"):
            ask = x if same else y
            if kind == "channel":
                y = by_channel * channel(ask)[:, :, None, None] * y
            else:
                y = by_position * spatial(ask).view(b, 1, rows, columns) * y
        return y

    even = (lambda y: torch.full((b, c), 1 / c)), (lambda y: torch.full((b, p), 1 / p))
    left = "features = features * weights * count, and the next one is asked about these features."
    for order in ("channel-spatial", "spatial-channel"):
        with case(f"For {order}"):
            got, where = expect_parts(function(x, order, channel, spatial), "features", "where")
            expect_tensor(got, x.shape)
            expect_tensor(where, (b, p))
            wanted, looked = in_order(x, order, channel, spatial)
            other, _ = in_order(x, "-".join(order.split("-")[::-1]), channel, spatial)
            expect_not(got, other, "The first that is named must come first; here it comes last.", "order.split('-').")
            alike = weighed(order, same=True)
            expect_not(got, alike, "The second must see what the first left; here both see the same.", left)
            shrunk = weighed(order, 1, 1), weighed(order, 1, p), weighed(order, c, 1)
            times = "Weights must be multiplied by their number, so that even ones change nothing."
            expect_not(got, shrunk, times, left)
            summed = x + wanted
            expect_not(got, summed, "Features must be weighed; here what is weighed is added to them.", left)
            expect_close(where, looked, "where must be the weights of positions.", "what spatial returns, as it is.")
            expect_close(got, wanted, "Each must weigh what the one before it left.", left)
            expect_close(function(x, order, *even)[0], x, "Even weights must change nothing.", left)
            expect_trains(function, x, like=in_order, fixed=(order, channel, spatial))
