"""A batch that several ranks share: what each function must do, told one property at a time."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_close,
    expect_not,
    expect_sure_and_wrong,
    expect_tensor,
    expect_trains,
    over,
    task,
)
from mmlearn.exercises.inputs import between, unit
from mmlearn.objectives import info_nce
from mmlearn.objectives.large_batch import local_info_nce
from mmlearn.training.collectives_demo import gather_backward, ring_all_reduce, to_next_rank

# Rows of all, on every rank.


@task(
    gather_backward,
    difficulty=3,
    minutes=15,
    example=by_hand(torch.tensor([[1.0, 2.0], [10.0, 20.0]]), gives=torch.tensor([[11.0], [22.0]])),
)
def check_gather_backward(function: Callable) -> None:
    """A sum over the ranks that used a row, for the rank that owns it."""
    ranks, b = between(3, 4), between(2, 3)
    for rest in ((5,), (), (2, 3)):
        gradient = torch.randn(ranks, ranks * b, *rest)
        got = expect_tensor(function(gradient), (ranks, b, *rest))
        blocks = gradient.view(ranks, ranks, b, *rest)  # (rank whose loss, rank that owns, row, …)
        own = torch.stack([blocks[rank, rank] for rank in range(ranks)])
        hint = "each rank used every row: add up what all losses say of a row."
        expect_not(got, own, "A row must learn from the losses of all ranks; here from its own rank's only.", hint)
        expect_not(
            got,
            blocks.sum(1),
            "A rank must get what all losses say of its rows; here it is what its own loss says of the rows of all.",
            "the first axis says whose loss it is: sum over that one.",
        )
        expect_not(
            got,
            blocks.mean(0),
            "It must be the sum over ranks, not the mean.",
            "the loss is the sum of the ranks' losses; data parallelism takes its mean later.",
        )
        expect_not(
            got,
            gradient.sum(0).unflatten(0, (b, ranks)).transpose(0, 1),
            "Rank r owns b rows in a row, from row r · b on; here ranks take turns.",
            "view(ranks, b, …), or chunk(ranks).",
        )
        words = "It must be the sum over ranks, cut into as many parts in order of rank."
        expect_close(got, blocks.sum(0), words, "gradient.sum(0), and then its ranks parts.")


# A part of the loss.


ALL = torch.tensor([[1.0, 0.0]]).repeat(4, 1)


@task(
    local_info_nce,
    difficulty=3,
    minutes=20,
    example=by_hand(ALL[:2], ALL[:2], ALL, ALL, torch.tensor(3.0), 2, gives=math.log(4)),
)
def check_local_info_nce(function: Callable) -> None:
    """Own rows ask, all rows answer, and the right one is at its position among all."""
    b, world, scale = between(3, 4), between(2, 3), torch.tensor(4.0)
    rows, first = b * world, b * (world - 1)
    alike = unit(1, 8).repeat(rows, 1)
    hint = "logits are (b, all): own rows by the rows of all; the mean over own rows and both directions."
    nothing = function(alike[:b], alike[:b], alike, alike, scale, first)
    words = f"Embeddings that know nothing must cost ln of the number of all rows, ln {rows}."
    expect_close(nothing, math.log(rows), words, hint)

    def draw(first: int = first) -> tuple:
        images, texts = unit(rows, 8), unit(rows, 8)
        return images[first : first + b], texts[first : first + b], images, texts, scale, first

    draws, same = [draw() for _ in range(3)], agreement(function, local_info_nce)
    got = over(draws, function)
    matching = torch.arange(first, first + b)
    from_0 = over(draws, lambda u, v, images, texts, s, first: local_info_nce(u, v, images, texts, s, 0))
    hint = "torch.arange(first, first + b)."
    expect_not(got, from_0, "Own row i is row first + i of all, and must pick that; here it picks row i.", hint)
    by_image = over(draws, lambda u, v, images, texts, s, first: F.cross_entropy(s * u @ texts.T, matching))
    by_text = over(draws, lambda u, v, images, texts, s, first: F.cross_entropy(s * v @ images.T, matching))
    expect_not(
        got,
        (by_image, by_text),
        "Own images must pick among all texts, and own texts among all images; here only one of both is asked.",
        "two matrices of logits, (b, all) each, and half the sum of their cross-entropies.",
    )
    own = over(draws, lambda u, v, images, texts, s, first: info_nce(u, v, s))
    expect_not(got, own, "Own rows must be asked against all rows; here against own rows only.", hint)
    expect_not(
        got,
        over(draws, lambda u, v, images, texts, s, first: local_info_nce(u, v, texts, images, s, first)),
        "Images must pick texts and texts images; here each picks within its own modality.",
        "image_embedding @ all_texts.T, and text_embedding @ all_images.T.",
    )
    same(draws, "It must be the mean of -log softmax at the matching row of all.", "cross_entropy of (b, all) logits.")
    with case("Of the first rank"):
        same([draw(0)], "The right row must be the own one.", "first is 0.")
    with case("Where own rows do not begin at a multiple of b"):
        same([draw(1)], "The right row must be row first + i.", "take first as it is given.")
    expect_trains(function, *draws[0][:5], fixed=(first,), like=local_info_nce)
    with case("At logit_scale 200, where the wrong ones are nearest"):
        u, _, images, *_ = draws[0]
        sure = u, u.roll(1, 0), images, images.roll(1, 0), torch.tensor(200.0)
        expect_sure_and_wrong(function, *sure, fixed=(first,), like=local_info_nce)


# A ring.


class _Network:
    """Sends, counts, and can lose what it sends."""

    def __init__(self, ranks: int, lossy: bool = False):
        self.ranks, self.lossy, self.numbers = ranks, lossy, 0

    def __call__(self, message: Tensor) -> Tensor:
        if not isinstance(message, Tensor) or message.ndim != 2 or len(message) != self.ranks:
            raise ValueError("a message is a tensor (ranks, numbers), a row for each rank")
        self.numbers += message.shape[1]
        return torch.zeros_like(message) if self.lossy else to_next_rank(message)


@task(
    ring_all_reduce,
    difficulty=4,
    minutes=35,
    example=by_hand(
        torch.tensor([[1.0, 2.0], [10.0, 20.0]]), to_next_rank, gives=torch.tensor([[11.0, 22.0], [11.0, 22.0]])
    ),
)
def check_ring_all_reduce(function: Callable) -> None:
    """The sum on every rank, by messages to the next one only, of 2 (w - 1) chunks."""
    ranks = between(4, 6)
    n = ranks * between(2, 4)

    def reduce(part: Tensor) -> tuple[Tensor, int]:
        network = _Network(len(part))
        return expect_tensor(function(part, network), tuple(part.shape)), network.numbers

    part = torch.randn(ranks, n)
    got, sent = reduce(part)
    whole = part.sum(0).expand(ranks, n)
    expect_not(got, whole / ranks, "It must be the sum over ranks, not the mean.", "nothing is divided.")
    half = sent == (ranks - 1) * n // ranks and not got.allclose(whole, atol=1e-5)
    words = "Ranks have sent for one half only: then each holds the whole sum of one chunk, and needs the others."
    expect(not half, words, "all-gather: sends go on, and what arrives takes the place of what was there.")
    expect_close(got, whole, "Every rank must hold the sum over all ranks.", "print the chunks after each turn.")
    expect(sent > 0, "Ranks must exchange what they hold by send; this never sends.", "received = send(message).")
    most = 2 * (ranks - 1) * n // ranks
    expect(
        sent <= most,
        f"A rank must send 2 (w - 1) chunks of n / w numbers, here {most}; this sends {sent}.",
        "one chunk in each turn, and w - 1 turns in each half.",
    )
    with case("Where the network loses all that is sent"):
        other = part.clone()
        other[0] += 1
        before, after = (expect_tensor(function(x, _Network(ranks, lossy=True))) for x in (part, other))
        words = "A rank must know of others only what it received; here others' numbers arrive nevertheless."
        expect(torch.equal(before[1:], after[1:]), words, "row r is computed from row r and from what send gives it.")
    for n in (ranks + 1, 2 * ranks - 1, ranks - 2, 1):
        with case(f"With {n} numbers on {ranks} ranks"):
            part = torch.randn(ranks, n)
            got, sent = reduce(part)
            words = "Every rank must hold the sum, without what chunks were filled up with."
            expect_close(got, part.sum(0).expand(ranks, n), words, "F.pad with zeros, and cut them off at the end.")
            most = 2 * (ranks - 1) * -(-n // ranks)
            words = f"A rank must send no more than 2 (w - 1) chunks of ⌈n / w⌉ numbers, {most}; this sends {sent}."
            expect(sent <= most, words, "fill n up to the next multiple of w, and no further.")
    with case("With one rank"):
        got, sent = reduce(torch.randn(1, 3))
        expect(sent == 0, "Nothing must be sent.", "w - 1 turns are none.")
