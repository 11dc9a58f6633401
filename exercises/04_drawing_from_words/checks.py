"""Drawing from words: what the two opponents learn from, told one property at a time."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_boolean,
    expect_close,
    expect_not,
    expect_parts,
    expect_sure_and_wrong,
    expect_tensor,
    expect_trains,
    expect_whole,
    over,
    task,
)
from mmlearn.exercises.inputs import between, numbers, uniform
from mmlearn.objectives.drawing import (
    conditioning_augmentation,
    interpolate_texts,
    matching_aware_discrimination,
    matching_aware_generation,
    other_captions,
    standard_normal_divergence,
)

# Conditions: between two texts, and around one.


@task(
    interpolate_texts,
    difficulty=1,
    minutes=5,
    example=by_hand(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 6.0]]), 0.25, gives=torch.tensor([[2.5, 5.0]])),
)
def check_interpolate_texts(function: Callable) -> None:
    """β of the one text and 1 − β of the other."""
    text, other, beta = numbers(3, 6), numbers(3, 6), uniform(0.1, 0.4)
    got = expect_tensor(function(text, other, beta), text.shape)
    line = "beta * text + (1 - beta) * other."
    half = (text + other) / 2
    expect_not(got, half, "The text must weigh β; here both weigh a half.", line)
    expect_not(got, text + other, "Weights must add up to 1; here each text weighs 1.", line)
    expect_not(got, text + beta * other, "The other text must weigh 1 − β; here the text stays whole.", line)
    same = agreement(function, interpolate_texts)
    same((text, other, beta), "It must be β of the text and 1 − β of the other.", line)
    same((text, other, 1.0), "With β = 1 it must be the text itself.", line)
    expect_trains(function, text, other, like=interpolate_texts, fixed=(beta,))


@task(
    conditioning_augmentation,
    difficulty=2,
    minutes=10,
    example=by_hand(
        torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 1.3863]]), torch.tensor([[2.0, -1.0]]),
        gives=torch.tensor([[3.0, -1.0]]),
    ),
)  # fmt: skip
def check_conditioning_augmentation(function: Callable) -> None:
    """A mean, and noise as wide as the standard deviation."""
    mean, log_variance, noise = numbers(3, 6), numbers(3, 6), numbers(3, 6)
    got = expect_tensor(function(mean, log_variance, noise), mean.shape)
    root = "the standard deviation is exp(log_variance / 2)."
    expect_not(got, mean + noise, "Noise must be as wide as σ; here every σ is 1.", root)
    expect_not(got, mean + log_variance.exp() * noise, "σ is the root of the variance; here it is the variance.", root)
    expect_not(got, mean + log_variance * noise, "log_variance is a logarithm; here it is taken as σ itself.", root)
    expect_not(got, mean + log_variance.exp().sqrt(), "σ must multiply the noise; here it is added as it is.", root)
    same = agreement(function, conditioning_augmentation)
    same((mean, log_variance, 0 * noise), "Without noise it must be the mean.", "nothing else is added to the mean.")
    same((mean, log_variance, noise), "It must be μ + σ · noise.", root)
    expect_trains(function, mean, log_variance, like=conditioning_augmentation, fixed=(noise,))


@task(
    standard_normal_divergence,
    difficulty=2,
    minutes=15,
    example=by_hand(torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.zeros(2, 2), gives=1.5),
)
def check_standard_normal_divergence(function: Callable) -> None:
    """The divergence from a standard normal distribution: a sum over numbers, a mean over rows."""
    b, d = between(3, 4), between(5, 7)
    draws = [(numbers(b, d), numbers(b, d)) for _ in range(3)]
    got = over(draws, function)

    def cost(one: Callable, last: Callable = lambda each: each.sum(1).mean() / 2) -> Tensor:
        return torch.stack([last(one(mean, logs)) for mean, logs in draws])

    def divergence(mean: Tensor, logs: Tensor) -> Tensor:
        return mean.square() + logs.exp() - 1 - logs

    sums = "sum(1) over the numbers of a row, then mean() over rows, and half of it."
    expect_not(
        got, cost(divergence, lambda each: each.sum(1).mean()), "Half of it is asked; here it is twice that.", sums
    )
    expect_not(
        got,
        cost(divergence, lambda each: each.mean() / 2),
        "Numbers of a row must add up; here it is their mean.",
        sums,
    )
    expect_not(
        got, cost(divergence, lambda each: each.sum() / 2), "It must be the mean over rows; here it is their sum.", sums
    )
    terms = "μ² + σ² − 1 − ln σ², where σ² is exp(log_variance)."
    back = cost(lambda mean, logs: (1 + mean.square()) / logs.exp() - 1 + logs)
    expect_not(got, back, "It goes from the condition to the standard normal; here it goes the other way.", terms)
    width = cost(lambda mean, logs: mean.square() + (logs / 2).exp() - 1 - logs)
    expect_not(got, width, "σ² must be exp(log_variance); here it is its root.", terms)
    sign = cost(lambda mean, logs: mean.square() + logs.exp() - 1 + logs)
    expect_not(got, sign, "The logarithm must be taken away; here it is added.", terms)
    alone = cost(lambda mean, logs: logs.exp() - 1 - logs), cost(lambda mean, logs: mean.square())
    expect_not(got, alone, "Both mean and variance must count; here only one of them does.", terms)
    nothing = function(torch.zeros(b, d), torch.zeros(b, d))
    expect_close(nothing, 0.0, "Standard normal conditions must cost nothing.", terms)
    same = agreement(function, standard_normal_divergence)
    same(draws, "It must be half of the sum of μ² + σ² − 1 − ln σ².", terms)
    expect_trains(function, *draws[0], like=standard_normal_divergence)


# Two opponents, one of which reads.


@task(
    matching_aware_generation,
    difficulty=2,
    minutes=10,
    example=by_hand(torch.tensor([0.0]), torch.tensor([1.0986]), gives=0.981),
)
def check_matching_aware_generation(function: Callable) -> None:
    """What is drawn passes for real, for texts that somebody wrote and for those between two."""
    b = between(5, 7)
    draws = [(numbers(b), numbers(b)) for _ in range(3)]
    got, sure = over(draws, function), "F.softplus(-score) is −log σ(score)."

    def cost(one: Callable, last: Callable = lambda made, middle: made.mean() + middle.mean()) -> Tensor:
        return torch.stack([last(one(made), one(middle)) for made, middle in draws])

    def passes(score: Tensor) -> Tensor:
        return F.softplus(-score)

    expect_not(got, cost(F.softplus), "High scores must cost little; here they cost much.", sure)
    fading = cost(lambda score: -F.softplus(score))
    expect_not(
        got, fading, "It must be −log σ(score); here it is log(1 − σ(score)), which fades where it is needed.", sure
    )
    expect_not(got, cost(torch.neg), "It must be −log σ(score); here it is the score itself, turned.", sure)
    terms = "made's mean and between's mean, added."
    expect_not(
        got, cost(passes, lambda made, middle: made.mean()), "Texts between two must count; here they do not.", terms
    )
    expect_not(
        got, cost(passes, lambda made, middle: middle.mean()), "Texts as written must count; here they do not.", terms
    )
    expect_not(
        got,
        cost(passes, lambda made, middle: (made + middle).mean() / 2),
        "Both must be added; here it is their mean.",
        terms,
    )
    expect_not(
        got,
        cost(passes, lambda made, middle: (made + middle).sum()),
        "Each must be a mean over pictures; here it is a sum.",
        terms,
    )
    same = agreement(function, matching_aware_generation)
    same(draws, "It must be the mean of −log σ(score), for both kinds of texts.", sure)
    with case("Without texts between two"):
        same([draw[:1] for draw in draws], "Only what is made must count.", "between may be None.")
    expect_trains(function, *draws[0], like=matching_aware_generation)
    far = torch.full((b,), -400.0)
    expect_sure_and_wrong(function, far, far - 1, like=matching_aware_generation)


@task(
    matching_aware_discrimination,
    difficulty=3,
    minutes=20,
    example=by_hand(torch.tensor([1.0986]), torch.tensor([0.0]), torch.tensor([-1.0986]), gives=0.778),
)
def check_matching_aware_discrimination(function: Callable) -> None:
    """Real pictures with their text from wrong texts, and from made pictures, which are half of what is wrong each."""
    b = between(5, 7)
    is_wrong = torch.arange(b) != 1
    draws = [(numbers(b), numbers(b), numbers(b), is_wrong) for _ in range(3)]
    got = over([draw[:3] for draw in draws], function)

    def cost(last: Callable) -> Tensor:
        found = [(F.softplus(-real), F.softplus(wrong), F.softplus(made)) for real, wrong, made, _ in draws]
        return torch.stack([last(*(one.mean() for one in each)) for each in found])

    halves = "real + (wrong + made) / 2."
    expect_not(
        got,
        cost(lambda real, wrong, made: real + wrong + made),
        "Wrong and made must weigh a half each; here each weighs 1.",
        halves,
    )
    expect_not(
        got,
        cost(lambda real, wrong, made: (real + wrong + made) / 3),
        "Real pictures must weigh as much as all else; here all weigh a third.",
        halves,
    )
    expect_not(
        got,
        cost(lambda real, wrong, made: real + made),
        "A wrong text must be punished; here it does not count.",
        halves,
    )
    expect_not(
        got,
        cost(lambda real, wrong, made: real + wrong),
        "Made pictures must be punished; here they do not count.",
        halves,
    )
    low = "log(1 − σ(s)) is −softplus(s): what is wrong must have low scores."
    kind = torch.stack(
        [
            F.softplus(-real).mean() + (F.softplus(-wrong).mean() + F.softplus(made).mean()) / 2
            for real, wrong, made, _ in draws
        ]
    )
    expect_not(got, kind, "A real picture with a wrong text must score low; here it must score high.", low)
    turned = torch.stack(
        [
            F.softplus(real).mean() + (F.softplus(-wrong).mean() + F.softplus(-made).mean()) / 2
            for real, wrong, made, _ in draws
        ]
    )
    expect_not(got, turned, "Real pictures must score high, and all else low; here it is turned.", low)
    same = agreement(function, matching_aware_discrimination)
    same(
        [draw[:3] for draw in draws], "It must be −log σ of real, and half of −log(1 − σ) of wrong and of made.", halves
    )
    with case("Where a picture has no wrong text"):
        some = over(draws, function)
        every = over([draw[:3] for draw in draws], matching_aware_discrimination)
        expect_not(
            some, every, "Only rows where is_wrong holds must count; here all do.", "F.softplus(wrong)[is_wrong]."
        )
        diluted = torch.stack(
            [
                F.softplus(-real).mean() + (F.softplus(wrong[is_wrong]).sum() / b + F.softplus(made).mean()) / 2
                for real, wrong, made, _ in draws
            ]
        )
        expect_not(
            some, diluted, "It must be the mean of rows that count; here the sum is divided by all.", "is_wrong.sum()."
        )
        same(draws, "Wrong texts must be those where is_wrong holds.", "F.softplus(wrong)[is_wrong].mean().")
    with case("Where no picture has a wrong text"):
        alone = (*draws[0][:3], torch.zeros(b, dtype=torch.bool))
        same(alone, "Wrong texts must cost nothing.", "divide by at least 1: a mean over nothing is NaN.")
    expect_trains(function, *draws[0][:3], like=matching_aware_discrimination)
    far = torch.full((b,), 400.0)
    expect_sure_and_wrong(function, -far, far, far, like=matching_aware_discrimination)


@task(
    other_captions,
    difficulty=3,
    minutes=20,
    example=by_hand(torch.tensor([7, 7, 9]), gives=(torch.tensor([2, 2, 0]), torch.tensor([True, True, True]))),
)
def check_other_captions(function: Callable) -> None:
    """The next row, in a circle, with another caption; itself where there is none."""
    b = between(7, 9)
    # The next row has mostly the same caption, and the numbers differ by less than float32 can tell.
    caption_id = 2**24 + torch.arange(b) // 2 % 3
    rows, differs = expect_parts(function(caption_id), "rows", "differs")
    rows, differs = expect_whole(rows, (b,)), expect_boolean(differs, (b,))
    expect(((rows >= 0) & (rows < b)).all(), f"Rows must be from 0 to {b - 1}.", "in a circle: % b.")
    position = torch.arange(b)
    circle = "of the b rows (i + 0) % b, (i + 1) % b, … the first whose caption_id is another."
    expect(
        not torch.equal(rows, (position + 1) % b),
        "The caption must be another; the next row may have the same.",
        circle,
    )
    expect((caption_id[rows] != caption_id).all(), "The caption of each row that is chosen must be another.", circle)
    wanted = other_captions(caption_id)
    before = (b - 1 - other_captions(caption_id.flip(0))[0]).flip(0)
    expect(not torch.equal(rows, before), "It must be the next one; here it is the one before.", circle)
    first = (caption_id[:, None] != caption_id).int().argmax(1)
    expect(
        not torch.equal(rows, first),
        "It must be the next one from each row on; here it is the first of the batch.",
        circle,
    )
    expect(torch.equal(rows, wanted[0]), "It must be the next row whose caption is another.", circle)
    expect(differs.all(), "Where another caption is found, differs must be True.", "any along the circle.")
    for words, ids in (
        ("With ids below 0", [-1, -1, 0, -7]),
        ("Where many rows in turn have one caption", [5] * 9 + [6]),
    ):
        with case(words):
            ids = torch.tensor(ids).roll(between(0, 3))
            rows, differs = expect_parts(function(ids), "rows", "differs")
            found = torch.equal(rows, other_captions(ids)[0]) and differs.all()
            expect(found, "It must be the next row whose caption is another.", circle)
    with case("Where all captions are one"):
        rows, differs = expect_parts(function(torch.full((4,), 3)), "rows", "differs")
        expect(not differs.any(), "No caption is another: differs must be False.", "any along the circle.")
        expect(
            torch.equal(rows, torch.arange(4)),
            "Each row must be handed back itself.",
            "argmax of zeros is 0: begin the circle with the row itself.",
        )
