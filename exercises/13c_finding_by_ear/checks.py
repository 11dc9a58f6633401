"""Questions, styles, chance and draws: what each function must do, told one property at a time.

What the library has not is written here, above its check.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_close,
    expect_not,
    expect_number,
    expect_one_number,
    expect_parts,
    expect_seeded,
    expect_share,
    expect_tensor,
    expect_whole,
    near,
    task,
)
from mmlearn.exercises.inputs import between, numbers, seeded, some_of, unit

# What is asked.


def question_of(takes: Float[Tensor, "*clips takes d"]) -> Float[Tensor, "*clips d"]:
    r"""One question of all that may have been said, :math:`\bar t / \lVert \bar t \rVert`; 0 where takes cancel."""
    return F.normalize(takes.mean(-2), dim=-1)


@task(
    question_of,
    difficulty=1,
    minutes=5,
    example=by_hand(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), gives=torch.tensor([[0.7071, 0.7071]])),
)
def check_question_of(function: Callable) -> None:
    """The direction of the mean over takes, for any number of clips, and none where takes cancel."""
    clips, count, d = between(4, 5), between(6, 7), 8
    takes = unit(clips, count, d)
    takes = F.normalize(takes + 2 * takes[:, :1], dim=-1)  # those of a clip are alike, more or less
    got = expect_tensor(function(takes), (clips, d))
    mean = takes.mean(1)
    over = "mean(-2): the axis before the last one holds the takes."
    expect_not(got, mean, "It must have unit length; here it is the mean itself.", "F.normalize(…, dim=-1).")
    expect_not(got, takes.sum(1), "It must have unit length; here it is the sum itself.", "F.normalize(…, dim=-1).")
    expect_not(got, takes[:, 0], "All takes must count; here only the first does.", over)
    expect_not(got, mean / mean.norm(), "Each question must have unit length; here all together have.", "dim=-1.")
    summed = mean / mean.abs().sum(-1, keepdim=True)
    expect_not(got, summed, "Length is the root of the sum of squares; here it is the sum.", "F.normalize.")
    expect_not(got, F.normalize(takes.amax(1), dim=-1), "It must be the mean; here it is the largest.", over)
    same = agreement(function, question_of)
    same((takes,), "It must be the mean over takes, at unit length.", over)
    for words, shape in (("One clip alone", (count, d)), ("Clips of two languages", (2, clips, count, d))):
        with case(words):
            same((unit(*shape),), "It must be the mean over takes, at unit length.", over)
    with case("Where takes cancel each other"):
        opposite = torch.stack([takes[:, 0], -takes[:, 0]], dim=1)
        property = "No direction is left, so that it must be 0."
        expect_close(function(opposite), torch.zeros(clips, d), property, "F.normalize divides by no 0.")


# Two styles.


def without_style(features: Float[Tensor, "n d"], style: Int[Tensor, "n"]) -> Float[Tensor, "n d"]:
    """Each picture's features less the mean of its own style, at unit length; 0 for one that is alone in its style."""
    same = (style[:, None] == style).float()
    return F.normalize(features - same @ features / same.sum(1, keepdim=True), dim=-1)


@task(
    without_style,
    difficulty=1,
    minutes=10,
    example=by_hand(
        torch.tensor([[1.0, 0.0], [0.0, 5.0], [3.0, 0.0], [0.0, 9.0]]), torch.tensor([0, 1, 0, 1]),
        gives=torch.tensor([[-1.0, 0.0], [0.0, -1.0], [1.0, 0.0], [0.0, 1.0]]),
    ),
)  # fmt: skip
def check_without_style(function: Callable) -> None:
    """Each style loses its own mean, whatever its number is and however many pictures it has."""
    d, style = between(5, 6), torch.tensor([0, 0, 0, 4, 4, 9, 9, 9, 9, 9])
    style = style[torch.randperm(len(style), generator=seeded())]
    n = len(style)
    features = 4 * numbers(n, d) + 3 * numbers(10, d)[style]  # so long that a small epsilon cannot be noticed here
    got = expect_tensor(function(features, style), (n, d))
    mean = torch.stack([features[style == number].mean(0) for number in style])
    own = "for each style the mean of features[style == number], taken from its own pictures."

    def long(x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)

    expect_not(got, long(features), "Each style must lose its mean; here nothing is lost.", own)
    expect_not(got, features - mean, "It must have unit length; here it is as long as it was.", "normalise last.")
    expect_not(got, long(features - features.mean(0)), "Each style has a mean; here all share one.", own)
    before = long(features) - torch.stack([long(features)[style == number].mean(0) for number in style])
    turned = "First the mean goes, then comes unit length; here it is the other way."
    expect_not(got, (before, long(before)), turned, "F.normalize at the end alone.")
    middle = torch.stack([mean[style == number][0] for number in style.unique()]).mean(0)
    even = "Each style must lose its own mean; here it is the mean of all styles."
    expect_not(got, long(features - middle), even, own)
    across = long(features - features.mean(1, keepdim=True))
    expect_not(got, across, "The mean is over pictures; here it is over the features of one.", "mean(0).")
    expect_not(got, long(features + mean), "The mean must be taken away; here it is added.", "minus.")
    same = agreement(function, without_style)
    same((features, style), "It must be features less their style's mean, at unit length.", own)
    with case("Features of a hundred-thousandth"):
        small = "Their direction is that of large ones."
        same((1e-5 * features, style), small, "nothing larger than 1e-12 may be added to a length.")
    with case("A picture that is alone in its style"):
        lonely = style.clone()
        lonely[0] = 7
        property = "It is its own mean, so that 0 must be left."
        expect(near(function(features, lonely)[0], 0.0), property, "F.normalize leaves 0 as it is.")
        same((features, lonely), "All others must lose the mean of their own style.", own)


# Chance.


def recall_by_chance(right: Bool[Tensor, "queries items"], k: int) -> float:
    r"""The R@k of a random order, the mean over queries of :math:`1 - \binom{n - r}{k} / \binom{n}{k}`."""
    n = right.shape[1]
    k = min(k, n)
    missed = [math.comb(n - r, k) / math.comb(n, k) for r in right.sum(1).tolist()]
    return 1 - sum(missed) / len(missed)


@task(
    recall_by_chance,
    difficulty=2,
    minutes=15,
    example=by_hand(torch.tensor([[True, False, False, False], [False, True, False, True]]), 2, gives=2 / 3),
)
def check_recall_by_chance(function: Callable) -> None:
    """Several right answers help, each query has its own number of them, and no position is drawn twice."""
    queries, n, k = between(5, 6), between(12, 15), between(4, 5)
    counts = torch.arange(1, queries + 1)  # fewer than k in the mean
    right = some_of(queries, n, real=counts)
    got = expect_one_number(function(right, k))
    wanted = recall_by_chance(right, k)
    each = [(n, int(r)) for r in counts]

    def mean(of: Callable) -> float:
        return sum(of(n, r) for n, r in each) / queries

    position = "after j positions without a right one, n - r - j of n - j items are wrong."
    for value, property, hint in (
        (k / n, "Several right answers must raise the chance; here each query has one.", position),
        (mean(lambda n, r: r / n), "It must be among the first k; here it is at the first position.", position),
        (mean(lambda n, r: r * k / n), "Hits must not be added: two of them are one success.", "1 less all misses."),
        (mean(lambda n, r: min(1, r * k / n)), "Hits must not be added, also not up to 1.", "1 less all misses."),
        (mean(lambda n, r: 1 - (1 - r / n) ** k), "No item comes twice; here each position draws from all.", position),
        (mean(lambda n, r: 1 - (1 - k / n) ** r), "No position is taken twice; here right items share one.", position),
        (1 - wanted, "It must be the chance to find one; here it is the chance to miss all.", "1 minus it."),
        (mean(lambda n, r: (k / n) ** r), "One right item is enough; here all must be found.", "1 less all misses."),
    ):
        expect(not math.isclose(got, value, abs_tol=1e-6), property, hint)
    average = 1 - _missed(n, sum(r for _, r in each) / queries, k)
    early = "Each query must have its own chance; here the number of right items is averaged first."
    expect(not math.isclose(got, average, abs_tol=1e-6), early, "the mean over queries comes last.")
    expect_number(got, wanted, "It must be 1 less the chance that the first k are all wrong.", position)
    with case("Where fewer than k items are wrong"):
        some = torch.arange(n) < n - k + 1
        expect_number(function(some[None], k), 1.0, "One must be found for certain.", "some factor is 0.")
    with case("Where k is more than all items"):
        expect_number(function(right, n + 2), 1.0, "All are found.", "there are only n positions: min(k, n).")
    with case("A query without a right item"):
        none = torch.cat([right, torch.zeros(1, n, dtype=torch.bool)])
        expect_number(function(none, k), recall_by_chance(none, k), "It finds none, and counts as 0.", position)
    with case("Among 3,000 items"):
        many = some_of(2, 3000, real=[1, 40])
        hint = "multiply k factors, or use math.comb: a factorial of 3,000 is no float."
        expect_number(function(many, 10), recall_by_chance(many, 10), "It must be as exact.", hint)


def _missed(n: int, r: float, k: int) -> float:
    return math.prod(max(0.0, n - r - j) / (n - j) for j in range(k))


# What is drawn.


def draw_pairs(
    weight: Float[Tensor, "texts"], image: Int[Tensor, "texts"], size: int, generator: Generator
) -> tuple[Int[Tensor, "{size}"], Int[Tensor, "{size}"]]:
    """Numbers of texts, each drawn anew from all by weight, and the picture of each."""
    text = weight.multinomial(size, replacement=True, generator=generator)
    return text, image[text]


@task(
    draw_pairs,
    difficulty=2,
    minutes=15,
    example=by_hand(
        torch.tensor([0.0, 2.0, 0.0]), torch.tensor([5, 6, 7]), 2, seeded,
        gives=(torch.tensor([1, 1]), torch.tensor([6, 6])),
    ),
)  # fmt: skip
def check_draw_pairs(function: Callable) -> None:
    """Texts come as often as their weights say, again and again, with their own pictures, from the generator."""
    n, size = between(7, 8), 6000
    weight = torch.tensor([0.0, 1.0, 4.0, 1.0, 2.0, 0.5, 0.0, 3.0])[:n]
    image = torch.randint(50, (n,), generator=seeded()) + 2**24 + 1  # which float32 cannot hold

    def draw(generator: Generator, count: int = size) -> tuple[Tensor, Tensor]:
        text, seen = expect_parts(function(weight, image, count, generator), "text", "picture")
        return expect_whole(text, (count,)), expect_whole(seen, (count,))

    text, seen = draw(seeded())
    expect((text >= 0).all() and (text < n).all(), "Texts must be numbers from 0 to n - 1.", "positions in weight.")
    expect(torch.equal(seen, image[text]), "Each text must have its own picture.", "picture[text].")
    never = "A text of weight 0 must never come."
    expect(not (weight[text] == 0).any(), never, "the chance is weight / weight.sum(): no softmax, no even draw.")
    more = "by weight / weight.sum(), which multinomial does by itself; torch.bucketize on a cumulative sum can."
    for position in (1, 2, 4, 5):
        share = float(weight[position] / weight.sum())
        expect_share(text == position, share, "Texts must come as often as their weights say.", more)
    row = text.view(-1, 2)
    pairs = float((weight / weight.sum()).square().sum())
    anew = "Each draw must be from all texts: the next one may be the same again."
    expect_share(row[:, 0] == row[:, 1], pairs, anew, "replacement=True, and no order in what comes.")
    with case("With weights of a millionth"):
        small, _ = function(1e-6 * weight, image, size, seeded())
        expect_share(small == 2, float(4 / weight.sum()), "Only ratios of weights must matter.", more)
    with case("A single draw"):
        draw(seeded(), 1)
    expect_seeded(lambda generator: draw(generator, 20))
