"""Bridges to a language model that stays as it is: what each part must do, told one property at a time."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_boolean,
    expect_close,
    expect_not,
    expect_sure_and_wrong,
    expect_tensor,
    expect_trains,
    expect_whole,
    over,
    task,
)
from mmlearn.exercises.inputs import between, first_of, numbers, seeded, uniform, unit
from mmlearn.layers.lora import low_rank
from mmlearn.models.bridges.bridge import interleaved_positions
from mmlearn.models.bridges.flamingo import gated
from mmlearn.objectives.bridging import last_image_mask, query_text_contrast, query_text_mask, query_text_similarity
from mmlearn.objectives.generative import response_language_modelling

# A gate that is closed, and a change that is thin.


@task(
    gated,
    difficulty=1,
    minutes=10,
    example=by_hand(
        torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[10.0, 0.0]]]), torch.tensor(0.5493),
        gives=torch.tensor([[[6.0, 2.0]]]),
    ),
)  # fmt: skip
def check_gated(function: Callable) -> None:
    """Nothing is added while the gate is closed, and the gate learns nevertheless."""
    x, found = numbers(2, 5, 8), numbers(2, 5, 8)
    closed = expect_tensor(function(x, found, torch.tensor(0.0)), x.shape)
    expect_close(closed, x, "With the gate at 0 what was must stay as it is.", "tanh 0 is 0; a sigmoid of 0 is ½.")
    gate = torch.tensor(uniform(0.6, 1.2))
    got = expect_tensor(function(x, found, gate), x.shape)
    tanh = "x + gate.tanh() * found."
    expect_not(got, x + gate * found, "The gate must pass a tanh, so that it stays below 1.", tanh)
    blend = (1 - gate.tanh()) * x + gate.tanh() * found
    expect_not(got, blend, "What was must stay whole; here the gate takes from it what it lets in.", tanh)
    expect_not(got, gate.tanh() * (x + found), "What was must pass no gate; only what is found does.", tanh)
    same = agreement(function, gated)
    same((x, found, gate), "It must be x + tanh(gate) · found.", tanh)
    same((x, found, -gate), "A negative gate must take away what is found.", "tanh keeps the sign.")
    with case("At a gate of 0"):
        expect_trains(function, x, found, torch.tensor(0.0), like=gated)
    with case("At another gate"):
        expect_trains(function, x, found, gate, like=gated)


@task(
    low_rank,
    difficulty=2,
    minutes=10,
    example=by_hand(
        torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0], [0.0], [2.0]]), 2.0,
        gives=torch.tensor([[6.0, 0.0, 12.0]]),
    ),
)  # fmt: skip
def check_low_rank(function: Callable) -> None:
    """α / r times B A x, for tokens of any number of axes."""
    rank, wide, out, alpha = between(2, 4), between(6, 9), between(10, 13), uniform(5, 9)
    x, down, up = numbers(4, wide), numbers(rank, wide), numbers(out, rank)
    got = expect_tensor(function(x, down, up, alpha), (4, out))
    nothing = function(x, down, 0 * up, alpha)
    expect_close(nothing, torch.zeros(4, out), "With B = 0 nothing must change.", "nothing but a product.")
    change = x @ down.T @ up.T
    scale = "divide alpha by the rank, which is the number of rows of down."
    expect_not(got, change, "It must be scaled by α / r; here it is not scaled.", scale)
    expect_not(got, alpha * change, "It must be scaled by α / r; here it is by α alone.", scale)
    expect_not(got, alpha * rank * change, "It must be scaled by α / r; here α is multiplied by r.", scale)
    wrong = alpha / out * change, alpha / wide * change
    expect_not(got, wrong, "r is the rank; here α is divided by a width of the layer.", scale)
    root = alpha / math.sqrt(rank) * change
    expect_not(got, root, "It must be divided by r; here it is by its root.", "the root is that of another paper.")
    same = agreement(function, low_rank, tolerance=1e-4)
    same((x, down, up, alpha), "It must be α / r · B A x.", "down first, and then up: F.linear(F.linear(x, down), up).")
    with case("With tokens of a batch"):
        same((numbers(2, 3, wide), down, up, alpha), "Each token must be changed alike.", "F.linear takes any axes.")
    expect_trains(function, x, down, up, like=low_rank, fixed=(alpha,))


# What counts, and who sees whom.


@task(
    response_language_modelling,
    difficulty=2,
    minutes=15,
    example=by_hand(
        torch.tensor([[[0.0, 0.0], [1.0986, 0.0], [0.0, 9.0]]]), torch.tensor([[1, 0, 0]]),
        torch.tensor([[False, False, True]]), gives=0.2877,
    ),
)  # fmt: skip
def check_response_language_modelling(function: Callable) -> None:
    """Tokens that answer, each from the position before it, and no others."""
    b, t, v = 3, between(8, 10), between(11, 15)
    position = torch.arange(t)
    response = ((position >= 3) & (position < torch.tensor([[5], [6], [8]]))) | (position == t - 1)
    tokens = torch.randint(v, (b, t), generator=seeded())
    draws = [(numbers(b, t, v), tokens, response) for _ in range(3)]
    logs = [logits.log_softmax(-1) for logits, _, _ in draws]
    got = over(draws, function)

    def cost(counts: Tensor, shift: int = 1) -> Tensor:
        rows = counts.nonzero().tolist()
        return torch.stack([-torch.stack([log[b, i - shift, tokens[b, i]] for b, i in rows]).mean() for log in logs])

    before = "the logits that stand at position i belong to token i + 1."
    own = cost(response, 0), cost(response & (position < t - 1), 0)
    expect_not(got, own, "Logits must belong to the next token; here they belong to their own.", before)
    every = cost(position.expand(b, t) > 0)
    expect_not(
        got, every, "What was asked must not count; here every token does.", "take tokens where response is True."
    )
    expect_not(
        got,
        cost(~response & (position > 0)),
        "The response must count; here all else does.",
        "response, not ~response.",
    )
    late = torch.cat([response[:, :1] & False, response[:, :-1]], 1)
    expect_not(got, cost(late), "response must be moved with the tokens: token i counts where response[i] is.", before)
    rows = torch.stack([cost(response & (torch.arange(b)[:, None] == row)) for row in range(b)]).mean(0)
    expect_not(got, rows, "Each token must count alike; here each text does.", "one mean over all tokens that answer.")
    total = cost(response) * response.sum()
    expect_not(got, total, "It must be the mean of the tokens that answer; here it is their sum.", "mean, not sum.")
    diluted = total / (b * (t - 1))
    expect_not(
        got, diluted, "Only what counts must be counted: here the sum is divided by all tokens.", "response.sum()."
    )
    same = agreement(function, response_language_modelling)
    same(draws, "It must be the mean cross-entropy of the tokens that answer.", before)
    expect_trains(function, draws[0][0], like=response_language_modelling, fixed=(tokens, response))
    sure = 400 * torch.nn.functional.one_hot((tokens + 1) % v, v).float().roll(-1, 1)
    expect_sure_and_wrong(function, sure, like=response_language_modelling, fixed=(tokens, response))


@task(
    query_text_similarity,
    difficulty=2,
    minutes=10,
    example=by_hand(
        torch.tensor([[[1.0, 0.0], [0.6, 0.8]]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]]),
        gives=torch.tensor([[0.8, 1.0]]),
    ),
)  # fmt: skip
def check_query_text_similarity(function: Callable) -> None:
    """Every picture with every text, by the query that fits best."""
    b, m, q, d = between(3, 4), between(5, 6), between(7, 8), 9
    queries, texts = unit(b, q, d), unit(m, d)
    got = expect_tensor(function(queries, texts), (b, m))
    every = torch.einsum("bqd,md->bmq", queries, texts)
    best = "the highest over the queries: amax over their axis."
    expect_not(got, every.mean(-1), "The best query must speak for the picture; here it is their mean.", best)
    expect_not(got, every.sum(-1), "The best query must speak for the picture; here it is their sum.", best)
    expect_not(got, every[..., 0], "All queries must be asked; here only the first is.", best)
    expect_not(got, every.amin(-1), "The best query must speak for the picture; here the worst does.", best)
    expect_not(got, every.abs().amax(-1), "A query that says the opposite must not fit; here its sign is lost.", best)
    expect_not(got, every.logsumexp(-1), "It must be the highest itself; here it is a soft one.", best)
    same = agreement(function, query_text_similarity)
    same((queries, texts), "It must be the highest cosine over queries.", best)
    with case("Where all similarities are below 0"):
        away = -unit(m, d).abs(), unit(b, q, d).abs()
        same(away[::-1], "It must be the highest of them, which is below 0.", "begin with the first query, not with 0.")
    again = function(queries.flip(1), texts)
    expect_close(again, got, "The order of queries must not count.", best)
    expect_trains(function, queries, texts, like=query_text_similarity)


@task(
    last_image_mask,
    difficulty=2,
    minutes=15,
    example=by_hand(
        torch.tensor([[0, 1, 1, 2]]), 2, 1,
        gives=torch.tensor([[[False, False], [True, False], [True, False], [False, True]]]),
    ),
)  # fmt: skip
def check_last_image_mask(function: Callable) -> None:
    """The last picture before a token: neither earlier ones, nor one behind it."""
    images, each = between(3, 4), between(2, 3)
    t = 2 * images + 2
    before = torch.stack([torch.arange(t) // 2, (torch.arange(t) + 1) // 2]).clamp(max=images)
    got = expect_boolean(function(before, images, each), (2, t, images * each))
    number = torch.arange(images * each) // each + 1
    last = "picture j // each is seen where it is number before - 1, counted from 0."
    expect(not got[before == 0].any(), "Before the first picture nothing must be seen.", "0 pictures: a row of False.")
    all_before, next_one = number <= before[..., None], number == before[..., None] + 1
    next_one = next_one & (before > 0)[..., None]
    earlier = "Of several pictures before a token only the last must be seen; here all of them are."
    expect(not torch.equal(got, all_before), earlier, last)
    expect(not torch.equal(got, next_one), "The picture must stand before the token; here it is the next one.", last)
    expect(got[before > 0].any(-1).all(), "Behind a picture something must be seen.", last)
    expect(
        (got.sum(-1)[before > 0] == each).all(), f"A picture has {each} embeddings, and all must be seen.", "j // each."
    )
    turns = torch.arange(images * each) % images + 1 == before[..., None]
    in_a_row = "The embeddings of a picture must stand in a row; here pictures take turns."
    expect(not torch.equal(got, turns), in_a_row, "j // each is the picture of embedding j, not j % pictures.")
    expect(
        torch.equal(got, last_image_mask(before, images, each)), "It must be the last picture before each token.", last
    )


@task(
    query_text_mask,
    difficulty=3,
    minutes=20,
    example=by_hand(
        "writing", 1, torch.tensor([[True, True]]),
        gives=torch.tensor([[[True, False, False], [True, True, False], [True, True, True]]]),
    ),
)  # fmt: skip
def check_query_text_mask(function: Callable) -> None:
    """Three masks of one transformer: apart, together, and a text that sees queries and its own past."""
    q, t = between(3, 4), between(5, 6)
    real = first_of(t, [t, t - 2])
    rows = torch.cat([torch.ones(2, q, dtype=torch.bool), real], 1)
    asks, says = slice(0, q), slice(q, q + t)
    for name in ("contrast", "matching", "writing"):
        with case(f"For {name}"):
            got = expect_boolean(function(name, q, real), (2, q + t, q + t))
            padding = got[1, :, q + t - 2 :]
            expect(
                not padding.any(),
                "Padding must never be seen.",
                "queries are always real; & with the mask, by columns.",
            )
            expect(got[:, asks, asks].all(), "Queries must see each other.", "the first q rows and columns.")
            seen = got & rows[:, :, None]
            back, there = seen[:, says, asks][real], seen[:, asks, says]
            if name == "contrast":
                expect(not back.any(), "The text must not see the queries: it would know the picture.", "apart.")
                expect(not there.any(), "Queries must not see the text: they would know the answer.", "apart.")
            if name == "matching":
                expect(there[0].all(), "Queries must see the text, because they judge it.", "all see all.")
            if name == "writing":
                expect(not there.any(), "Queries must not see the text that is to be written.", "only the text looks.")
            if name != "contrast":
                expect(back.all(), "The text must see all queries.", "what it knows of the picture, it has from them.")
            text = got[0, says, says]
            if name == "writing":
                future = torch.ones(t, t, dtype=torch.bool).triu(1)
                expect(not (text & future).any(), "A token must not see later ones, which it is to write.", "tril.")
                expect(text.diagonal().all(), "A token must see itself.", "tril() with the diagonal.")
                expect(text[~future].all(), "A token must see all tokens before it.", "tril, not the one before alone.")
            else:
                expect(text.all(), "Tokens of the text must see each other, later ones as well.", "no tril here.")
            wanted = query_text_mask(name, q, real) & rows[:, :, None]
            alike = "Where a text has padding, all else must see what it sees in a whole one."
            expect(torch.equal(seen, wanted), alike, "padding takes away its own columns, and nothing more.")


# Places, and the loss of queries.


@task(
    interleaved_positions,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([[[True, True, False], [True, False, False]]]), 1, True,
        gives=torch.tensor([[0, 1, 2, -1, 3, 4, -1, -1]]),
    ),
)  # fmt: skip
def check_interleaved_positions(function: Callable) -> None:
    """Places that go on from text to text, without padding, and with or without those of pictures."""
    s, t, n = between(2, 3), between(5, 6), between(2, 3)
    lengths = torch.stack([t - 1 - torch.arange(s), 2 + torch.arange(s)])
    mask = torch.arange(t) < lengths[..., None]
    for takes in (True, False):
        with case("Where pictures take places" if takes else "Where pictures take none"):
            got = expect_whole(function(mask, n, takes), (2, s * (n + t))).unflatten(1, (s, n + t))
            words, shown = got[..., n:], got[..., :n]
            counted = torch.cat([torch.full((2, s, n), takes), mask], 2)
            turned = torch.cat([mask, torch.full((2, s, n), takes)], 2).flatten(1)
            last = torch.equal(got.flatten(1), (turned.cumsum(1) - 1).masked_fill(~turned, -1))
            expect(not last, "A picture stands before its text; here it stands behind.", "F.pad(mask, (n, 0)).")
            expect((words[~mask] == -1).all(), "Padding must have no position, which is -1.", "masked_fill at the end.")
            if not takes:
                expect((shown == -1).all(), "Pictures must have no position, which is -1.", "as padding has none.")
            first = got[counted].view(-1)[0]
            expect(first == 0, "Places must begin with 0.", "cumsum() - 1.")
            again = (got[:, 1][counted[:, 1]] == 0).any()
            expect(
                not again,
                "The second text must go on where the first ended; here positions begin anew.",
                "flatten first.",
            )
            apart = [row[real].diff() for row, real in zip(got.flatten(1), counted.flatten(1))]
            hint = "cumsum of what counts, so that padding moves nothing."
            expect(
                all((each == 1).all() for each in apart),
                "Each that counts must be one position behind the one before.",
                hint,
            )
            expect(
                torch.equal(got.flatten(1), interleaved_positions(mask, n, takes)),
                "A picture stands before its text.",
                hint,
            )


@task(
    query_text_contrast,
    difficulty=4,
    minutes=25,
    example=by_hand(
        torch.ones(2, 1, 1), torch.ones(2, 1), 5.0, torch.eye(2).bool(), gives=0.693,
    ),
)  # fmt: skip
def check_query_text_contrast(function: Callable) -> None:
    """Both ways, with several positives a row, and a little for every other pair."""
    b, q, d, scale = between(5, 6), 3, 12, uniform(3, 6)
    positives = torch.eye(b).bool()
    positives[0, 1] = positives[1, 0] = True  # two captions are equal
    draws = [(unit(b, q, d), unit(b, d), scale, positives) for _ in range(3)]
    got = over(draws, function)

    def cost(
        smooth: float = 0.1, both: tuple[float, float] = (0.5, 0.5), share: bool = True, s: float = scale
    ) -> Tensor:
        target = positives / positives.sum(1, keepdim=True) if share else torch.eye(b)
        target = (1 - smooth) * target + smooth / b
        found = []
        for queries, texts, *_ in draws:
            logits = s * query_text_similarity(queries, texts)
            ways = [-(target * each.log_softmax(-1)).sum(1).mean() for each in (logits, logits.T)]
            found.append(both[0] * ways[0] + both[1] * ways[1])
        return torch.stack(found)

    halves = "half of what pictures pay, and half of what texts pay."
    expect_not(got, cost(both=(1, 0)), "Texts must pick their pictures too; here only pictures pick.", halves)
    expect_not(got, cost(both=(0, 1)), "Pictures must pick their texts too; here only texts pick.", halves)
    expect_not(got, cost(both=(1, 1)), "It must be the mean of both ways; here it is their sum.", halves)
    smooth = "(1 - 0.1) of the target, and 0.1 / b for every column."
    expect_not(got, cost(smooth=0), "Labels must be smoothed; here they are not.", smooth)
    many = "positives / positives.sum(1, keepdim=True)."
    expect_not(got, cost(share=False), "All that fit must share the target; here only the diagonal has it.", many)
    scaled = "logit_scale is 1 / τ already: multiply by it."
    expect_not(got, cost(s=1 / scale), "logit_scale must multiply; here it divides.", scaled)
    expect_not(got, cost(s=1.0), "The logits must be scaled; here they are cosines.", scaled)
    alike = unit(1, 1, d).repeat(b, q, 1)
    nothing = function(alike, alike[:, 0], scale, positives)
    expect_close(nothing, math.log(b), "Embeddings that know nothing must cost ln b.", "a mean over rows, not a sum.")
    same = agreement(function, query_text_contrast)
    same(draws, "It must be the soft cross-entropy of both ways.", f"{halves[:-1]}; the target is {smooth}")
    learned = *draws[0][:2], torch.tensor(scale)
    expect_trains(function, *learned, like=query_text_contrast, fixed=(positives,))
    queries, texts = unit(b, q, d), unit(b, d)
    queries[:, 0] = texts.roll(1, 0)
    sure = queries, texts, torch.tensor(400.0)
    expect_sure_and_wrong(function, *sure, like=query_text_contrast, fixed=(torch.eye(b).bool(),))
