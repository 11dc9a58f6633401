"""Words and regions: who looks where, and how well a picture shows its words, told one property at a time."""

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
    expect_close,
    expect_not,
    expect_parts,
    expect_tensor,
    expect_trains,
    over,
    task,
)
from mmlearn.exercises.inputs import between, numbers, uniform
from mmlearn.objectives.drawing import damsm, word_attention, word_region_scores


@task(
    word_attention,
    difficulty=3,
    minutes=15,
    example=by_hand(
        torch.tensor([[[1.0986]]]), torch.tensor([[[1.0], [0.0], [5.0]]]), torch.tensor([[True, True, False]]),
        gives=(torch.tensor([[[0.75]]]), torch.tensor([[[0.75, 0.25, 0.0]]])),
    ),
)  # fmt: skip
def check_word_attention(function: Callable) -> None:
    """For each position a mixture of the words that are real."""
    b, p, t, d = 2, between(3, 4), between(5, 6), 7
    queries, words = numbers(b, p, d), numbers(b, t, d)
    mask = torch.arange(t) < torch.tensor([[t], [t - 2]])
    mixed, weights = expect_parts(function(queries, words, mask), "mixtures", "weights")
    mixed, weights = expect_tensor(mixed, (b, p, d)), expect_tensor(weights, (b, p, t))
    over_words = "softmax(-1) over the words; what is no word gets a score so low that nothing is left."
    expect(not weights[1, :, t - 2 :].any(), "Padding must get no weight.", over_words)
    scores = (queries @ words.mT).masked_fill(~mask[:, None], -1e9)
    positions = scores.softmax(1)
    expect_not(
        weights[0],
        positions[0],
        "Each position must spread its weight over words; here each word does over positions.",
        over_words,
    )
    scaled = (scores / d**0.5).softmax(-1)
    expect_not(
        weights[0],
        scaled[0],
        "Scores are not divided by √d here; these are.",
        "AttnGAN's equation has the product alone.",
    )
    cosine = (F.normalize(queries, dim=-1) @ F.normalize(words, dim=-1).mT).softmax(-1)
    expect_not(weights[0], cosine[0], "Scores are products, not cosines.", "no normalize.")
    wanted = word_attention(queries, words, mask)
    expect_close(weights, wanted[1], "Weights must be the softmax over words of h · e.", over_words)
    expect_close(mixed, wanted[0], "A mixture must be the words, by their weights.", "weights @ words.")
    with case("With a text without words"):
        nothing = torch.zeros(b, t, dtype=torch.bool)
        mixed, weights = function(queries, words, nothing)
        zero = "multiply the weights by the mask behind the softmax."
        expect_close(weights, torch.zeros(b, p, t), "No word must get any weight.", zero)
        expect_close(mixed, torch.zeros(b, p, d), "Nothing must be taken.", zero)
    expect_trains(function, queries, words, like=word_attention, fixed=(mask,))


@task(
    word_region_scores,
    difficulty=4,
    minutes=35,
    example=by_hand(
        torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[1.0, 0.0]]]), torch.tensor([[True]]),
        gives=(torch.tensor([[0.7071]]), torch.tensor([[[[0.5, 0.5]]]])),
    ),
)  # fmt: skip
def check_word_region_scores(function: Callable) -> None:
    """Over words first, then over regions, and the words' cosines joined by a soft maximum."""
    images, texts, p, t, d = 2, 3, between(4, 5), between(5, 6), 7
    regions, words = numbers(images, p, d), numbers(texts, t, d)
    mask = torch.arange(t) < torch.tensor([[t], [t - 2], [t - 1]])
    sharpness = uniform(2, 4), uniform(5, 7)
    whole = torch.ones(texts, t, dtype=torch.bool)
    score, weights = expect_parts(function(regions, words, whole, sharpness), "scores", "weights")
    score, weights = expect_tensor(score, (images, texts)), expect_tensor(weights, (images, texts, t, p))
    product = torch.einsum("mtd,npd->nmtp", words, regions)
    order = "softmax over words, times γ₁, softmax over regions."
    expect_close(
        weights.sum(-1), torch.ones(images, texts, t), "Each word must spread a weight of 1 over regions.", order
    )
    raw = (sharpness[0] * product).softmax(-1)
    expect_not(weights, raw, "Scores must first be a softmax over words; here that is left out.", order)
    expect_not(weights, product.softmax(2).softmax(-1), "γ₁ must sharpen; here it is left out.", order)
    other = (sharpness[1] * product.softmax(2)).softmax(-1)
    expect_not(weights, other, "γ₁ is the first of sharpness; here it is the second.", order)
    wanted = word_region_scores(regions, words, whole, sharpness)
    expect_close(weights, wanted[1], "Weights must be a softmax over regions of γ₁ times a softmax over words.", order)
    context = weights @ regions[:, None]
    cosine = F.cosine_similarity(context, words[None], dim=-1)
    soft = "log Σ exp(γ₂ cos) / γ₂: logsumexp over words."
    expect_not(score, cosine.mean(-1), "Words must be joined by a soft maximum; here it is their mean.", soft)
    expect_not(score, cosine.amax(-1), "Words must be joined by a soft maximum; here it is a hard one.", soft)
    expect_not(score, cosine.logsumexp(-1), "γ₂ must sharpen; here it is left out.", soft)
    expect_not(
        score, (sharpness[1] * cosine).logsumexp(-1), "It must be divided by γ₂ in the end; here it is not.", soft
    )
    dot = sharpness[1] * (context * words[None]).sum(-1)
    expect_not(
        score, dot.logsumexp(-1) / sharpness[1], "Words and contexts are compared by cosine; here by a product.", soft
    )
    expect_close(score, wanted[0], "It must be the soft maximum of the words' cosines.", soft)
    with case("With padding"):
        score, weights = function(regions, words, mask, sharpness)
        wanted = word_region_scores(regions, words, mask, sharpness)
        alike = "padding must be left out of the softmax over words, and of the logsumexp."
        expect_close(score, wanted[0], "Padding must change no score.", alike)
        real = mask[None, :, :, None]
        expect_close(weights * real, wanted[1] * real, "Padding must change no weight of a word.", alike)
    expect_trains(function, regions, words, like=word_region_scores, fixed=(mask, sharpness))


def damsm_loss(
    regions: Float[Tensor, "b p d"],
    image: Float[Tensor, "b d"],
    words: Float[Tensor, "b t d"],
    sentence: Float[Tensor, "b d"],
    mask: Bool[Tensor, "b t"],
    sharpness: tuple[float, float, float] = (5.0, 5.0, 10.0),
) -> Float[Tensor, ""]:
    """The library's two losses of DAMSM, by words and by the sentence, added up."""
    return sum(damsm(regions, image, words, sentence, mask, sharpness=sharpness).values())


@task(
    damsm_loss,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]), torch.eye(2), torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]]),
        torch.eye(2), torch.tensor([[True], [True]]), (5.0, 5.0, 1.0986), gives=1.0526,
    ),
)  # fmt: skip
def check_damsm_loss(function: Callable) -> None:
    """Pictures pick their texts and texts their pictures, by words and by the whole."""
    b, p, t, d = between(3, 4), between(4, 5), 6, 7
    mask, sharpness = torch.arange(t) < t - torch.arange(b)[:, None], (uniform(2, 4), uniform(5, 7), uniform(8, 9))
    draws = [(numbers(b, p, d), numbers(b, d), numbers(b, t, d), numbers(b, d), mask, sharpness) for _ in range(3)]
    got = over(draws, function)

    def cost(ways: tuple = (0.5, 0.5), kinds: tuple = (1, 1), third: float = sharpness[2], unit: bool = True) -> Tensor:
        found = []
        for regions, image, words, sentence, mask, sharp in draws:
            x, y = (F.normalize(each, dim=-1) if unit else each for each in (image, sentence))
            total = 0.0
            for weight, scores in zip(kinds, (word_region_scores(regions, words, mask, sharp[:2])[0], x @ y.T)):
                own = torch.arange(b)
                pay = F.cross_entropy(third * scores, own), F.cross_entropy(third * scores.T, own)
                total = total + weight * (ways[0] * pay[0] + ways[1] * pay[1])
            found.append(total)
        return torch.stack(found)

    halves = "half of what pictures pay, and half of what texts pay."
    expect_not(got, cost((1, 0)), "Texts must pick their pictures too; here only pictures pick.", halves)
    expect_not(got, cost((0, 1)), "Pictures must pick their texts too; here only texts pick.", halves)
    expect_not(got, cost((1, 1)), "It must be the mean of both ways; here it is their sum.", halves)
    kinds = "the loss of word_region_scores, and that of the cosine of picture and sentence."
    expect_not(got, cost(kinds=(1, 0)), "The whole must count; here only words do.", kinds)
    expect_not(got, cost(kinds=(0, 1)), "Words must count; here only the whole does.", kinds)
    expect_not(got, cost(kinds=(0.5, 0.5)), "Both losses must be added; here it is their mean.", kinds)
    sharp = "sharpness[:2] is for word_region_scores, and sharpness[2] times the scores are logits."
    expect_not(got, cost(third=1.0), "γ₃ must sharpen; here it is left out.", sharp)
    expect_not(got, cost(third=1 / sharpness[2]), "γ₃ must multiply; here it divides.", sharp)
    expect_not(got, cost(unit=False), "Whole pictures and sentences are compared by cosine; here by a product.", kinds)
    agreement(function, damsm_loss)(draws, "It must be both losses, each both ways.", f"{kinds} {sharp}")
    expect_trains(function, *draws[0][:4], like=damsm_loss, fixed=draws[0][4:])
