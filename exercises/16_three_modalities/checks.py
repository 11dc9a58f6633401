"""Dropped tokens, sets of texts, binding, reading others: what each must do, told one property at a time."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_boolean,
    expect_close,
    expect_not,
    expect_parts,
    expect_rows_differ,
    expect_seeded,
    expect_sure_and_wrong,
    expect_tensor,
    expect_trains,
    expect_whole,
    expect_zero,
    near,
    over,
    task,
)
from mmlearn.exercises.inputs import between, orthogonal, seeded, some_of, unit
from mmlearn.models.trimodal.drop_token import drop_tokens
from mmlearn.models.trimodal.mult import read_others
from mmlearn.objectives import binding_loss, info_nce, mil_nce

# One sequence reads the others.


def _look(d: int) -> Callable:
    """A look with weights of its own, which sees what is real in its context."""
    query, key, value = (torch.randn(d, d) for _ in range(3))

    def look(x: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        scores = (x @ query) @ (source @ key).mT / math.sqrt(d)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -1e9)
        return x + scores.softmax(-1) @ (source @ value)

    return look


def _adds(x: Tensor, source: Tensor, mask: Tensor) -> Tensor:
    return x + (source * mask[..., None]).sum(1, keepdim=True)


@task(
    read_others,
    difficulty=1,
    minutes=10,
    example=by_hand(
        torch.ones(1, 1, 1),
        [torch.tensor([[[10.0], [20.0]]]), torch.tensor([[[100.0]]])],
        [torch.tensor([[True, False]]), torch.tensor([[True]])],
        [_adds, _adds],
        gives=torch.tensor([[[11.0, 101.0]]]),
    ),
)
def check_read_others(function: Callable) -> None:
    """Own queries, the other's keys and mask, each look from the start, side by side."""
    b, n, d = 2, 6, 5  # all of a length, so that whatever is mixed up still fits
    target, sources = torch.randn(b, n, d), [torch.randn(b, n, d) for _ in range(2)]
    masks, looks = [some_of(b, n, real=2), some_of(b, n, real=3)], [_look(d), _look(d)]
    got = expect_tensor(function(target, sources, masks, looks), (b, n, 2 * d))
    _check_mixed_up(got.split(d, dim=-1), target, sources, masks, looks)
    same = agreement(function, read_others)
    same((target, sources, masks, looks), "Each part must be what its look gives.", "nothing is added to it.")
    expect_trains(function, target, sources, fixed=(masks, looks), like=read_others)
    with case("Sources of other lengths"):
        sources, masks = [torch.randn(b, 3, d), torch.randn(b, 9, d)], [some_of(b, 3, real=1), some_of(b, 9, real=8)]
        same((target, sources, masks, looks), "It must work too.", "side by side: dim=-1.")
    with case("One source"):
        same((target, sources[:1], masks[:1], looks[:1]), "It must work too.", "a loop.")


def _check_mixed_up(
    parts: tuple[Tensor, ...], target: Tensor, sources: list[Tensor], masks: list[Tensor], looks: list[Callable]
) -> None:
    def ways(see: Callable, sources: list = sources, masks: list = masks, looks: list = looks) -> bool:
        """Whether any part is what its look gives if it is used like this."""
        given = zip(parts, sources, masks, looks)
        return any(near(part, see(look, source, mask)) for part, source, mask, look in given)

    wanted = [look(target, source, mask) for source, mask, look in zip(sources, masks, looks)]
    swapped = near(parts[0], wanted[1]) and near(parts[1], wanted[0])
    expect(not swapped, "What is read of the first source must stand first.", "in the order of sources.")
    turned = [look(source, target, m) for source, mask, look in zip(sources, masks, looks) for m in (None, mask)]
    expect(
        not any(near(part, way) for part in parts for way in turned),
        "The target must ask and the source be read; here it is the other way.",
        "look(target, source, mask): queries first, then what gives keys and values.",
    )
    itself = any(ways(lambda look, source, mask: look(target, target, m)) for m in (*masks, None))  # noqa: B023
    expect(not itself, "The target must read the others, not itself.", "the source goes second.")
    expect_not(
        parts[1],
        looks[1](wanted[0], sources[1], masks[1]),
        "Each look must begin with the target as it was; here the second begins with what the first gave.",
        "no target = look(target, …).",
    )
    expect(
        not ways(lambda look, source, mask: look(target, source, None)),
        "What is padding in a source must not be read; here a mask is missing.",
        "hand on the mask of the source.",
    )
    expect(
        not ways(lambda look, source, mask: look(target, source, ~mask)),
        "True must mean that an element is real; here a mask is inverted.",
        "a look takes a mask as you are given it.",
    )
    together = "sources, masks and looks go together."
    expect(
        not ways(lambda look, source, mask: look(target, source, mask), masks=masks[::-1]),
        "The mask must be that of the source which is read; here it is the other one's.",
        together,
    )
    expect(
        not ways(lambda look, source, mask: look(target, source, mask), looks=looks[::-1]),
        "Each source must be read by the look that is meant for it.",
        together,
    )


# Fewer tokens.


SIX = torch.arange(6) < torch.tensor([5, 1])[:, None]


@task(
    drop_tokens,
    difficulty=4,
    minutes=25,
    example=by_hand(
        torch.arange(36.0).view(2, 6, 3),
        SIX,
        0.5,
        seeded,
        gives=lambda got: got[1].tolist() == [[True, True, True], [True, False, False]],
        says="the mask [[True, True, True], [True, False, False]]",
    ),
)
def check_drop_tokens(function: Callable) -> None:
    """The same share of what is real in each row, in order, by the generator; at rate 0 all of it."""
    b, n, d = 3, 8, 4

    def drop(x: Tensor, mask: Tensor | None, rate: float, k: int, seed: Generator | None = None) -> tuple[Tensor, ...]:
        result = function(x, mask, rate, seeded(seed))
        tokens, kept, position = expect_parts(result, "tokens", "mask", "position")
        tokens = expect_tensor(tokens, (len(x), k, x.shape[2]))
        return tokens, expect_boolean(kept, (len(x), k)), expect_whole(position, (len(x), k))

    x = torch.randn(b, n, d)
    tokens, kept, position = drop(x, None, 0.0, n)
    expect(
        torch.equal(tokens, x) and kept.all() and torch.equal(position, torch.arange(n).expand(b, n)),
        "At rate 0 nothing may be dropped or moved: all tokens, all real, at positions 0 … n - 1.",
        "give back what came; no mask means that all tokens are real.",
    )
    tokens, kept, position = drop(x, None, 0.5, n // 2)
    expect(kept.all(), "Without padding all that is kept is real.", "mask None means that all tokens are real.")
    _check_positions(x, tokens, position)
    *_, position = drop(x[:1].expand(20, n, d), None, 0.5, n // 2)
    expect(
        (position != position[:1]).any(),
        "Each row must keep tokens of its own choice; here all keep the same.",
        "draw random numbers for (b, n), not for n.",
    )
    expect_rows_differ(lambda seed: drop(x[:1].expand(20, n, d), None, 0.5, n // 2, seed)[2])
    expect_seeded(lambda seed: drop(x, None, 0.5, n // 2, seed))
    for rate, k in ((0.0, n), (0.5, n // 2)):
        with case(f"At rate {rate}"):
            leaf, towards = x.clone().requires_grad_(), torch.randn(b, k, d)
            tokens, _, position = drop(leaf, None, rate, k)
            hint = "gather hands gradients on; stay in torch: no detach(), numpy or torch.tensor(…)."
            expect(tokens.requires_grad, "A gradient must flow from what is kept to the tokens.", hint)
            (gradient,) = torch.autograd.grad((tokens * towards).sum(), leaf)
            wanted = torch.zeros_like(x).scatter(1, position[..., None].expand_as(towards), towards)
            expect(near(gradient, wanted), "Each token that is kept must get its own gradient, the others 0.", hint)
    with case("Ten tokens at rate 0.7"):
        drop(torch.randn(b, 10, d), None, 0.7, 3)
    with case("Seven tokens at rate 0.75"):
        drop(torch.randn(b, 7, d), None, 0.75, 2)
    with case("Nine tokens at rate 0.75"):
        drop(torch.randn(b, 9, d), None, 0.75, 3)
    share = F.one_hot(drop(torch.randn(600, n, 1), None, 0.5, n // 2)[2], n).sum(1).float().mean(0)
    expect((share - 0.5).abs().max() < 0.12, "Every token must be kept equally often.", "random, and not the first.")
    _check_padding(drop)


def _check_positions(x: Tensor, tokens: Tensor, position: Tensor) -> None:
    ordered = (position[:, 1:] > position[:, :-1]).all()
    expect(ordered, "What is kept must stay in its order, each token once.", "sort the positions that were drawn.")
    expect(
        torch.equal(tokens, x.gather(1, position[..., None].expand_as(tokens))),
        "Position must say where each kept token stood; here token and position do not belong together.",
        "sort the positions first, then gather the tokens.",
    )


def _check_padding(drop: Callable) -> None:
    n, d = 8, 4
    length = torch.tensor([8, 6, 3, 1, 0]).repeat(8)[torch.randperm(40)]
    mask = some_of(40, n, real=length)  # padding anywhere
    x = torch.randn(40, n, d).masked_fill(~mask[..., None], 100.0)
    with case("With padding, at rate 0"):
        tokens, kept, _ = drop(x, mask, 0.0, n)
        expect(torch.equal(kept, mask) and torch.equal(tokens, x), "Tokens and mask must come back.", "as they came.")
    with case("With padding, at rate 0.5"):
        tokens, kept, position = drop(x, mask, 0.5, n // 2)
        expect(
            mask.gather(1, position)[kept].all(),
            "The mask must say of each kept token whether it is real; here padding is called real.",
            "True only where the position is that of a real token.",
        )
        wanted = (length + 1) // 2
        row = int((kept.sum(1) != wanted).int().argmax())
        expect(
            torch.equal(kept.sum(1), wanted),
            f"A row with {length[row]} real tokens must keep half of them, rounded up, {wanted[row]}; this keeps "
            f"{kept[row].sum()}.",
            "real tokens are drawn before padding, but no more than the row's own share of them.",
        )
        first = (kept[:, 1:] <= kept[:, :-1]).all()
        expect(first, "Real tokens must come first, then padding.", "sort what is not kept behind all positions.")
        for row, real in enumerate(kept):
            _check_positions(x[row : row + 1], tokens[row : row + 1, real], position[row : row + 1, real])
    with case("With ten real tokens of thirteen, at rate 0.7"):
        ten = torch.arange(13) % 4 != 3
        kept = int(drop(torch.randn(1, 13, d), ten[None], 0.7, 4)[1].sum())
        expect(kept == 3, "(1 - 0.7) · 10 must count as 3 here, too.", "ceil((1 - rate) * count - 1e-9), of the row.")
    with case("With padding, by chance"):
        real = torch.tensor([False, True, True, False, True, True, True, True])
        _, kept, position = drop(torch.randn(600, n, d), real.expand(600, n), 0.5, n // 2)
        share = F.one_hot(position[:, :3], n).sum(1).float().mean(0)[real]
        often = "Every real token must be kept equally often."
        expect((share - 0.5).abs().max() < 0.12, often, "random among those that are real, not the first of them.")


# Pairs, sets of texts, and what is missing.


CORNERS = torch.eye(2)


@task(
    mil_nce,
    difficulty=3,
    minutes=20,
    example=by_hand(CORNERS, CORNERS.expand(2, 2, 2), torch.tensor(3.0).log(), gives=math.log(3)),
)
def check_mil_nce(function: Callable) -> None:
    """ln(2b - 1) of nothing, the NCE of one positive, a sum inside the logarithm, and no part for what is not there."""
    b, c, d = between(4, 6), 3, 16
    video, text, scale = unit(b, d), unit(b, c, d), torch.tensor(4.0)
    same = agreement(function, mil_nce)
    expect_tensor(function(video, text, scale), ())
    alike = video[:1].expand(b, d)
    expect_close(
        function(alike, alike[:, None].expand(b, c, d), scale),
        math.log(2 * b - 1),
        f"Embeddings that are all alike know nothing: the loss must be ln(2b - 1) = ln {2 * b - 1}.",
        "its own texts, those of b - 1 other videos, and b - 1 other videos with its own texts; each counted once.",
    )
    same(
        (video, text[:, :1], scale),
        "With one text each it must be the NCE of one positive, against b - 1 other texts and b - 1 other videos.",
        "one softmax over 2b - 1 pairs: row and column, and the diagonal once.",
    )
    with case("At logit_scale 100"):
        expect_tensor(function(video, torch.cat([video[:, None], text[:, 1:]], 1), torch.tensor(100.0)), ())
    corner = orthogonal(d)
    one_fits = torch.stack([corner[:b], corner[b : 2 * b]], dim=1)
    expect(
        expect_tensor(function(corner[:b], one_fits, torch.tensor(30.0)), ()) < 0.01,
        "It must be enough that one of the texts fits; here the others cost.",
        "the sum over candidates is inside the logarithm: logsumexp, not a mean of logarithms.",
    )
    draws = [(unit(b, d), unit(b, c, d), scale) for _ in range(3)]
    expect_not(
        over(draws, function),
        over(draws, lambda video, text, scale: mil_nce(video, text.mean(1, keepdim=True), scale)),
        "Candidates must be compared with the video before they are put together.",
        "first the products, (b, b, candidates), then the sum of exponentials.",
    )
    same(
        (video, text, scale),
        "It must be -log of the own pairs' share among all pairs of the row and of the column.",
        "a sum over candidates, the own ones also below the line, the mean over rows.",
    )
    _check_missing_texts(function, video, text, scale)
    expect_trains(function, video, text, scale, like=mil_nce)
    with case("At logit_scale 200, where the wrong ones are nearest"):
        nearest = torch.cat([video[:, None], text], 1).roll(1, 0)
        expect_sure_and_wrong(function, video, nearest, torch.tensor(200.0), like=mil_nce)


def _check_missing_texts(function: Callable, video: Tensor, text: Tensor, scale: Tensor) -> None:
    b, c, _ = text.shape
    same = agreement(function, mil_nce)
    exists = some_of(b, c, real=torch.randint(1, c + 1, (b,)))
    exists[0] = torch.arange(c) < 1
    with case("With candidate_mask"):
        expect_close(
            function(video, torch.where(exists[..., None], text, unit(*text.shape)), scale, exists),
            function(video, text, scale, exists),
            "A text that does not exist must change nothing.",
            "-inf, or very low, where candidate_mask is False; True means that it exists.",
        )
        same((video, text, scale, exists), "It must agree.", "-inf.")
        exists[1] = False
        same(
            (video, text, scale, exists),
            "A video without any text must take no part as a row, though it stays a wrong answer for others.",
            "the mean over rows that have a text.",
        )
        nothing = torch.zeros(b, c, dtype=torch.bool)
        expect_close(function(video, text, scale, nothing), 0.0, "Without any text it must be 0.", "clamp.")
        expect_trains(function, video, text, scale, fixed=(exists,), like=mil_nce)
        with case("without any text"):
            expect_zero(function, video, text, scale, nothing)


THREE_ALIKE = torch.tensor([1.0, 0.0]).expand(3, 2)


@task(
    binding_loss,
    difficulty=2,
    minutes=15,
    example=by_hand(THREE_ALIKE, THREE_ALIKE, torch.tensor(3.0), torch.tensor([True, False, True]), gives=math.log(2)),
)
def check_binding_loss(function: Callable) -> None:
    """InfoNCE among those that have both; nothing of the others, and 0 where none has."""
    b, d, scale = 8, 16, torch.tensor(5.0)
    image, sound = unit(b, d), unit(b, d)
    everyone, some = torch.ones(b, dtype=torch.bool), F.pad(some_of(b - 1, real=4), (0, 1), value=True)
    same = agreement(function, binding_loss)
    with case("Where all are present"):
        same(
            (image, sound, scale, everyone),
            "It must be InfoNCE, the mean of both directions.",
            "pictures pick sounds, and sounds pick pictures; logits are logit_scale times the cosine.",
        )
    draws = [(unit(b, d), unit(b, d), scale, some) for _ in range(3)]
    expect_not(
        over(draws, function),
        over(draws, lambda image, sound, scale, some: info_nce(image[~some], sound[~some], scale)),
        "True must mean that a row is present; here the mask is inverted.",
        "image[present].",
    )
    got = expect_tensor(function(image, sound, scale, some), ())
    expect_close(
        function(image, torch.where(some[:, None], sound, unit(b, d)), scale, some),
        got,
        "What stands where no sound is must change nothing; here it is still compared with.",
        "leave such rows out before the softmax: they are no wrong answers either.",
    )
    expect_close(
        function(torch.where(some[:, None], image, unit(b, d)), sound, scale, some),
        got,
        "A picture without a sound must change nothing; it is no wrong answer for the sounds of others.",
        "leave out its row and its column.",
    )
    same(
        (image, sound, scale, some),
        "It must be InfoNCE among the rows that are present.",
        "the mean over these rows only; no division by b.",
    )
    with case("Where one caption is present twice"):
        caption = torch.arange(b)
        caption[some.nonzero()[-1]] = caption[some.nonzero()[-2]]
        same(
            (image, sound, scale, some, caption[:, None] == caption),
            "Equal captions must be no wrong answers for each other.",
            "positives are (b, b): take the present rows, and of these the present columns.",
        )
        fits = caption[:, None] == caption
        expect_trains(function, image, sound, scale, fixed=(some, fits), like=binding_loss)
    with case("Where an equal caption belongs to a row that is not present"):
        caption = torch.arange(b)
        caption[(~some).nonzero()[0]] = caption[some.nonzero()[0]]
        fits = caption[:, None] == caption
        whole = "first take the present rows and columns of positives, and then spread: a row's target sums to 1 there."
        same((image, sound, scale, some, fits), "The absent row must have no part in any target.", whole)
        expect_trains(function, image, sound, scale, fixed=(some, fits), like=binding_loss)
    expect_trains(function, image, sound, scale, fixed=(some,), like=binding_loss)
    with case("At logit_scale 200, where the wrong ones are nearest"):
        nearest = image, image.roll(1, 0), torch.tensor(200.0)
        expect_sure_and_wrong(function, *nearest, fixed=(everyone,), like=binding_loss)
    with case("Where none is present"):
        expect_zero(function, image, sound, scale, ~everyone)
