"""How retrieval is measured: what each function must do, told one property at a time."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlearn.evaluation import median_rank, modality_gap, recall_at, zero_shot
from mmlearn.evaluation.retrieval import ranks
from mmlearn.exercises import agreement, by_hand, case, expect, expect_number, expect_parts, expect_tensor, near, task
from mmlearn.exercises.inputs import between, orthogonal, unit


@task(modality_gap, difficulty=1, minutes=5, example=by_hand(torch.eye(2), torch.eye(2).flip(0), gives=0.0))
def check_modality_gap(function: Callable) -> None:
    """The distance of two means."""
    image, text, length = unit(20, 6), unit(20, 6), 3
    expect_number(
        function(image, image[torch.randperm(20)]),
        0,
        "The same points in another order must have gap 0.",
        "it is the distance of the two means, not the mean distance of pairs.",
    )
    expect_number(
        function(image, image + length * unit(6)),
        length,
        f"Texts moved by a step of length {length} must have gap {length}.",
        "the Euclidean length of the difference: neither squared, nor a sum or mean over features.",
    )
    agreement(function, modality_gap)((image, text), "It must be the distance of the means.", "mean(0), then norm.")
    expect_number(
        1e4 * function(1e-4 * image, 1e-4 * text),
        modality_gap(image, text),
        "Vectors of a ten-thousandth must have a gap of a ten-thousandth.",
        "nothing is added under the root.",
        tolerance=1e-3,
    )


NEAREST = torch.eye(3)[[0, 2, 2]]


@task(zero_shot, difficulty=1, minutes=5, example=by_hand(NEAREST, torch.eye(3), torch.tensor([0, 1, 2]), gives=2 / 3))
def check_zero_shot(function: Callable) -> None:
    """The share of pictures whose nearest class name is right."""
    n, classes = 200, 7
    names = orthogonal(16)[:classes]
    label = torch.randint(0, classes, (n,))
    expect_number(
        function(names[label], names, label),
        1,
        "Pictures that lie on the name of their class must all be right.",
        "the nearest name has the highest cosine: argmax over classes, and then a share, not a count.",
    )
    second = F.normalize(names[(label + 1) % classes] + names[label] / 2, dim=-1)
    expect_number(
        function(second, names, label),
        0,
        "Pictures whose right name comes second must all be wrong.",
        "one answer a picture: the nearest name only.",
    )
    image = F.normalize(names[label] + 0.6 * torch.randn(n, 16), dim=-1)
    share = "It must be the share of pictures whose nearest name is right."
    agreement(function, zero_shot)((image, names, label), share, "compare argmax with label.")
    away = F.normalize(names[label] / 2 - names.sum(0), dim=-1)
    nearest = "Where all cosines are negative, the nearest name must still be the highest of them."
    expect_number(function(away, names, label), 1, nearest, "argmax of the cosines as they are: no abs, no clamp.")


def no_ties(queries: int, items: int) -> Tensor:
    """A similarity of which each row has the numbers from 0 on in an order of its own."""
    return torch.rand(queries, items).argsort(-1).float()


def first_two(queries: int, items: int) -> Tensor:
    """Positives: the first two items of each row."""
    return (torch.arange(items) < 2).expand(queries, items).clone()


FLAT = torch.zeros(1, 4)
BELOW = (torch.arange(50) < torch.tensor([0, 1, 4, 39])[:, None]).float()  # so many items are above the right one
RIGHT_LAST = (torch.arange(50) == 49).expand(4, 50)


@task(
    ranks,
    difficulty=3,
    minutes=15,
    example=by_hand(
        torch.tensor([[5.0, 3.0, 3.0, 9.0]]),
        torch.tensor([[False, True, True, False]]),
        gives=(torch.tensor([2.0]), torch.tensor([0.0]), torch.tensor([2.0])),
    ),
)
def check_ranks(function: Callable) -> None:
    """Wrong items above the best right one; wrong and right ones level with it."""

    def three(*arguments: Tensor) -> list[Tensor]:
        parts = expect_parts(function(*arguments), "better", "wrong", "right")
        return [expect_tensor(part, (len(arguments[0]),)).float() for part in parts]

    queries, items = 6, 9
    distinct = no_ties(queries, items)
    better, wrong, right = three(distinct)
    expect(
        near(better, (distinct > distinct.diagonal()[:, None]).sum(1)),
        "better must count the items of a row that are above the right one: 0 if it comes first.",
        "without positives item i is right for query i; compare along the row with >, and do not add 1.",
    )
    expect(near(wrong, 0.0), "Without ties, wrong must be 0.", "the right item equals itself, but it is not wrong.")
    expect(near(right, 1.0), "Without ties, right must be 1: the right item itself.", "count it.")
    better, wrong, right = three(torch.zeros(queries, items))
    expect(near(better, 0.0), "In a flat row nothing must be better.", "an equal item is not above: > and not >=.")
    expect(near(wrong, items - 1) and near(right, 1.0), "In a flat row all wrong items must be level.", "use ==.")
    positives = torch.eye(queries, items, dtype=torch.bool)
    positives[:, -2:] = True
    distinct[:, -1] = items  # of the three that are right, the last comes first of all
    expect(
        near(three(distinct, positives)[0], 0.0),
        "With several right items, the best of them must count.",
        "mask wrong items with -inf, then take the maximum.",
    )
    distinct = no_ties(queries, items)
    distinct[:, -1] = -1
    better, _, right = three(distinct, positives)
    above = "Another right item must not count as better."
    expect(near(better, ranks(distinct, positives)[0]), above, "& ~positives.")
    expect(near(right, 1.0), "right must count only right items that are level with the best one.", "& positives.")
    for words, other in (("all below 0", distinct - 100), ("that differ by a thousand-millionth", 1e-9 * distinct)):
        with case(f"Similarities {words}"):
            hint = "wrong items become -inf, not 0; level is ==, not nearly."
            for name, got, wanted in zip(
                ("better", "wrong", "right"), three(other, positives), ranks(other, positives)
            ):
                expect(near(got, wanted), f"{name} must be what it is for others in the same order.", hint)
    similarity = torch.randint(0, 3, (queries, items)).float()
    for name, got, wanted in zip(
        ("better", "wrong", "right"), three(similarity, positives), ranks(similarity, positives)
    ):
        expect(near(got, wanted), f"With ties and several right items, {name} must be right too.", "try it by hand.")


@task(recall_at, difficulty=4, minutes=20, example=by_hand(2, FLAT, gives=0.5))
def check_recall_at(function: Callable) -> None:
    """A right item among the first k; ties are luck."""
    n = 8
    own = torch.eye(n)
    first, last, second = (torch.rand(n, n) + bonus for bonus in (2 * own, -2 * own, 2 * own + 4 * own.roll(1, 1)))
    expect_number(function(1, first), 1, "Where the right item comes first, R@1 must be 1.", "a share, not a count.")
    expect_number(function(n - 1, last), 0, "Where it comes last, R@k must be 0 for all k < n.", "the first k only.")
    expect_number(function(1, second), 0, "Where it comes second, R@1 must be 0.", "ranks from 0: better < k.")
    expect_number(function(2, second), 1, "Where it comes second, R@2 must be 1.", "any of the first k, not over k.")
    wide = torch.rand(4, 9)
    wide[:, 0] += 2
    wide[0, 0] += 2
    rows = "Each row is a query, and its items are the columns."
    expect_number(function(1, wide), 0.25, rows, "rank along the last axis.")
    positives, ordered = first_two(n, n), torch.arange(n, 0, -1).float().expand(n, n)
    expect_number(
        function(1, ordered, positives),
        1,
        "With several right items, one among the first k must be enough.",
        "whether any is found, not how many of them.",
    )
    flat, one = torch.zeros(n, n), (torch.arange(n) == between(0, n - 1)).expand(n, n)  # the same item for all
    expect_number(
        function(3, flat, one),
        3 / n,
        f"A flat similarity knows nothing and must find by luck: R@3 of {n} items is 3/{n}.",
        "ties are broken at random: the positions left are drawn from the level items; topk takes the first of them.",
    )
    with case("A flat similarity, 2 of 8 items right, R@3"):
        missed = math.comb(6, 3) / math.comb(8, 3)
        hint = "draw without putting back: 6/8 · 5/7 · 4/6 is the probability to miss thrice."
        expect_number(function(3, flat, positives), 1 - missed, "It must be 1 - 6/8 · 5/7 · 4/6.", hint)
    many = torch.randint(0, 4, (n, n)).float(), positives | (torch.rand(n, n) < 0.2)
    same = agreement(function, recall_at)
    for k in (1, 3, 5):
        same((k, *many), f"R@{k} with many ties must be its mean.", "by hand.")
        below = f"R@{k} of similarities that are all negative must be what it is for others in the same order."
        same((k, many[0] - 10, many[1]), below, "wrong items become -inf, not 0.")


@task(median_rank, difficulty=2, minutes=10, example=by_hand(BELOW.masked_fill(RIGHT_LAST, 0.5), RIGHT_LAST, gives=3.5))
def check_median_rank(function: Callable) -> None:
    """From 1; the median, of an even number too; ties by their mean."""
    n = 8
    first = torch.rand(n, n) + 2 * torch.eye(n)
    expect_number(function(first), 1, "Where the right item comes first, it must be 1.", "1 + better.")
    odd, even = _with_ranks([1, 1, 1, 2, 2, 2, 8]), _with_ranks([1, 1, 2, 5, 6, 8])
    expect_number(function(odd), 2, "Of ranks 1 1 1 2 2 2 8 it must be 2.", "the median, not the mean.")
    expect_number(
        function(even),
        3.5,
        "Of an even number of ranks, 1 1 2 5 6 8, it must be the mean of the middle two.",
        "torch.median takes the lower one; quantile(0.5) does not.",
    )
    expect_number(
        function(torch.zeros(n, n)),
        (n + 1) / 2,
        f"A flat similarity of {n} items must have the rank of a guess, {(n + 1) / 2}.",
        "the right item stands at a random position among those level with it.",
    )
    positives = first_two(n, n)
    expect_number(
        function(torch.zeros(n, n), positives),
        1 + 6 / 3,
        "Of 8 level items of which 2 are right, the first right one must come at 1 + 6/3 on average.",
        "the 6 wrong ones fall evenly into 3 gaps: before, between and after the right ones.",
    )
    many = torch.randint(0, 4, (n, n)).float(), positives | (torch.rand(n, n) < 0.2)
    same = agreement(function, median_rank)
    same(many, "With many ties it must be right too.", "1 + better + …")
    below = "Similarities that are all negative must have the ranks of others in the same order."
    same((many[0] - 10, many[1]), below, "wrong items become -inf, not 0.")


def _with_ranks(ranks: list[int]) -> Tensor:
    """A similarity of 8 items whose right one, on the diagonal, has this rank in each row."""
    rows = []
    for i, rank in enumerate(ranks):
        row = torch.randperm(7).float()  # the wrong items: 6 comes first
        rows.append(torch.cat([row[:i], torch.tensor([7.5 - rank]), row[i:]]))
    return torch.stack(rows)
