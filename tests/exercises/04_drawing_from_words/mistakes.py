"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import deaf, detached, then

from mmlearn.objectives.drawing import (
    conditioning_augmentation,
    interpolate_texts,
    matching_aware_discrimination,
    matching_aware_generation,
    other_captions,
    standard_normal_divergence,
    word_attention,
    word_region_scores,
)


def _divergence(mean, logs, *, one=None, last=lambda each: each.sum(1).mean() / 2):
    """PyTorch's own divergence of two normal distributions, or something else in its place."""
    if one is not None:
        return last(one(mean, logs))
    normal = torch.distributions.Normal
    apart = torch.distributions.kl_divergence(normal(mean, (logs / 2).exp()), normal(torch.zeros_like(mean), 1.0))
    return last(2 * apart)


def _passes(
    made, between=None, *, one=lambda s: -F.logsigmoid(s), join=lambda made, middle: made.mean() + middle.mean()
):
    return one(made).mean() if between is None else join(one(made), one(between))


def _told_apart(real, wrong, made, is_wrong=None, *, weights=(1.0, 0.5, 0.5), signs=(1, -1, -1), some=None):
    """Cross-entropies of three kinds, each with its weight, and high scores where the sign is 1."""
    some = some or (lambda losses, which: losses[which].sum() / max(int(which.sum()), 1))
    is_wrong = torch.ones_like(wrong, dtype=torch.bool) if is_wrong is None else is_wrong
    losses = [-F.logsigmoid(sign * score) for sign, score in zip(signs, (real, wrong, made))]
    means = losses[0].mean(), some(losses[1], is_wrong), losses[2].mean()
    return sum(weight * mean for weight, mean in zip(weights, means))


def _others(caption_id, *, circle=lambda i, b: [(i + step) % b for step in range(1, b)]):
    """Row by row, the first along a circle."""
    rows, ids = [], caption_id.tolist()
    for i, own in enumerate(ids):
        rows.append(next((j for j in circle(i, len(ids)) if ids[j] != own), i))
    rows = torch.tensor(rows)
    return rows, caption_id[rows] != caption_id


def _next(caption_id):
    rows = torch.arange(1, len(caption_id) + 1) % len(caption_id)
    return rows, caption_id[rows] != caption_id


def _mixed(queries, words, mask, *, score=lambda q, w: torch.einsum("bpd,btd->bpt", q, w), over=-1, padding=-1e30):
    """Numbers that count, divided by their sum."""
    scores = score(queries, words).masked_fill(~mask[:, None], padding)
    weights = scores.softmax(over).masked_fill(~mask[:, None], 0)
    return torch.einsum("bpt,btd->bpd", weights, words), weights


def _over_words(product, real):
    return product.masked_fill(~real, -1e30).softmax(2).masked_fill(~real, 0)


def _scores(
    regions, words, mask, sharpness=(5.0, 5.0), *, first=_over_words, gamma=lambda g: g[0],
    fit=lambda c, w: F.cosine_similarity(c, w, dim=-1), join=lambda fit, g: (g[1] * fit).logsumexp(-1) / g[1],
    padding=-1e4,
):  # fmt: skip
    """Part by part; each of them may be another one."""
    product = words[None] @ regions.mT[:, None]
    weights = (gamma(sharpness) * first(product, mask[None, :, :, None])).softmax(-1)
    context = torch.einsum("nmtp,npd->nmtd", weights, regions)
    found = fit(context, words[None]).masked_fill(~mask[None], padding)
    return join(found, sharpness), weights


def _damsm(
    regions, image, words, sentence, mask, sharpness=(5.0, 5.0, 10.0), *, ways=(0.5, 0.5), kinds=(1, 1),
    third=lambda g: g[2], unit=F.normalize, first=lambda g: g[:2],
):  # fmt: skip
    """The log-probabilities of the diagonal, row by row and column by column."""
    by_words = word_region_scores(regions, words, mask, first(sharpness))[0]
    total = 0
    for weight, scores in zip(kinds, (by_words, unit(image) @ unit(sentence).T)):
        logits = third(sharpness) * scores
        pay = [-logits.log_softmax(side).diagonal().mean() for side in (1, 0)]
        total = total + weight * (ways[0] * pay[0] + ways[1] * pay[1])
    return total


def _unmasked(regions, words, mask, sharpness=(5.0, 5.0)):
    return word_region_scores(regions, words, torch.ones_like(mask), sharpness)


RIGHT = {  # right answers that are written in another way than the library's
    "interpolate_texts": lambda text, other, beta=0.5: torch.lerp(other, text, beta),
    "conditioning_augmentation": lambda mean, logs, noise: torch.addcmul(mean, logs.exp().sqrt(), noise),
    "standard_normal_divergence": _divergence,
    "matching_aware_generation": _passes,
    "matching_aware_discrimination": _told_apart,
    "other_captions": _others,
    "word_attention": _mixed,
    "word_region_scores": _scores,
    "damsm_loss": _damsm,
}

MISTAKES = {
    "interpolate_texts": {
        "here both weigh a half": {"the middle": lambda text, other, beta=0.5: (text + other) / 2},
        "here each text weighs 1": {"a sum": lambda text, other, beta=0.5: text + other},
        "here the text stays whole": {"a step": lambda text, other, beta=0.5: text + beta * other},
        "are used in each other's place": {
            "the other way": lambda text, other, beta=0.5: interpolate_texts(other, text, beta)
        },
        "none comes to other": {"the other is a constant": deaf(interpolate_texts, 1)},
    },
    "conditioning_augmentation": {
        "here every σ is 1": {"no σ": lambda mean, logs, noise: mean + noise},
        "here it is the variance": {"the variance": lambda mean, logs, noise: mean + logs.exp() * noise},
        "taken as σ itself": {"the logarithm": lambda mean, logs, noise: mean + logs * noise},
        "here it is added as it is": {"no noise": lambda mean, logs, noise: mean + (logs / 2).exp()},
        "Without noise": {"σ more": lambda mean, logs, noise: conditioning_augmentation(mean, logs, noise + 1) + 1},
        "none comes to log_variance": {"σ is a constant": deaf(conditioning_augmentation, 1)},
    },
    "standard_normal_divergence": {
        "here it is twice that": {"no half": partial(_divergence, last=lambda each: each.sum(1).mean())},
        "here it is their mean": {"a mean of numbers": partial(_divergence, last=lambda each: each.mean() / 2)},
        "here it is their sum": {"a sum of rows": partial(_divergence, last=lambda each: each.sum() / 2)},
        "here it goes the other way": {
            "turned": partial(_divergence, one=lambda mean, logs: (1 + mean.square()) / logs.exp() - 1 + logs)
        },
        "here it is its root": {"σ": partial(_divergence, one=lambda mean, s: mean**2 + (s / 2).exp() - 1 - s)},
        "here it is added": {"a sign": partial(_divergence, one=lambda mean, s: mean**2 + s.exp() - 1 + s)},
        "here only one of them does": {
            "no mean": partial(_divergence, one=lambda mean, s: s.exp() - 1 - s),
            "means alone": partial(_divergence, one=lambda mean, s: mean**2),
        },
        "A gradient must flow from the result": {"no gradient": detached(standard_normal_divergence)},
    },
    "matching_aware_generation": {
        "here they cost much": {"turned": partial(_passes, one=F.softplus)},
        "which fades where it is needed": {"the fading form": partial(_passes, one=lambda s: -F.softplus(s))},
        "here it is the score itself": {"no logarithm": partial(_passes, one=torch.neg)},
        "Texts between two must count": {"made alone": lambda made, between=None: matching_aware_generation(made)},
        "Texts as written must count": {
            "between alone": lambda made, between=None: matching_aware_generation(made if between is None else between)
        },
        "here it is their mean": {"a mean": partial(_passes, join=lambda one, two: (one.mean() + two.mean()) / 2)},
        "here it is a sum": {"a sum": partial(_passes, join=lambda one, two: (one + two).sum())},
        "none comes to between": {"between is a constant": deaf(matching_aware_generation, 1)},
    },
    "matching_aware_discrimination": {
        "here each weighs 1": {"no halves": partial(_told_apart, weights=(1, 1, 1))},
        "here all weigh a third": {"a mean of three": partial(_told_apart, weights=(1 / 3, 1 / 3, 1 / 3))},
        "A wrong text must be punished": {"two terms": partial(_told_apart, weights=(1, 0, 1))},
        "Made pictures must be punished": {"nothing made": partial(_told_apart, weights=(1, 1, 0))},
        "here it must score high": {"wrong is right": partial(_told_apart, signs=(1, 1, -1))},
        "here it is turned": {"turned": partial(_told_apart, signs=(-1, 1, 1))},
        "here all do": {"every row": lambda real, wrong, made, is_wrong=None: _told_apart(real, wrong, made)},
        "divided by all": {"diluted": partial(_told_apart, some=lambda each, which: (each * which).mean())},
        "Where no picture has a wrong text": {
            "a mean of nothing": partial(_told_apart, some=lambda each, which: each[which].mean())
        },
        "none comes to wrong": {"wrong is a constant": deaf(matching_aware_discrimination, 1)},
    },
    "other_captions": {
        "the next row may have the same": {"the next row": _next},
        "here it is the one before": {
            "backwards": partial(_others, circle=lambda i, b: [(i - step) % b for step in range(1, b)])
        },
        "here it is the first of the batch": {"from the start": partial(_others, circle=lambda i, b: range(b))},
        "of each row that is chosen must be another": {"itself": lambda ids: (torch.arange(len(ids)), ids == ids)},
        "No caption is another": {"always": then(other_captions, lambda both: (both[0], torch.ones_like(both[1])))},
        "must be True": {"turned": then(other_captions, lambda both: (both[0], ~both[1]))},
        "must be boolean": {"numbers": then(other_captions, lambda both: (both[0], both[1].int()))},
    },
    "word_attention": {
        "here each word does over positions": {"over positions": partial(_mixed, over=1)},
        "these are": {"scaled": partial(_mixed, score=lambda q, w: q @ w.mT / q.shape[-1] ** 0.5)},
        "not cosines": {
            "cosines": partial(_mixed, score=lambda q, w: F.normalize(q, dim=-1) @ F.normalize(w, dim=-1).mT)
        },
        "Padding must get no weight": {
            "no mask": lambda queries, words, mask: word_attention(queries, words, torch.ones_like(mask))
        },
        "must be finite": {
            "minus infinity": lambda queries, words, mask: (lambda weights: (weights @ words, weights))(
                (queries @ words.mT).masked_fill(~mask[:, None], -torch.inf).softmax(-1)
            )
        },
        "must return mixtures and weights": {"weights alone": then(word_attention, lambda both: both[1])},
        "by their weights": {"twice as much": then(word_attention, lambda both: (2 * both[0], both[1]))},
    },
    "word_region_scores": {
        "here that is left out": {"no softmax over words": partial(_scores, first=lambda product, mask: product)},
        "γ₁ must sharpen": {"no γ₁": partial(_scores, gamma=lambda g: 1)},
        "here it is the second": {"γ₂ for γ₁": partial(_scores, gamma=lambda g: g[1])},
        "here it is their mean": {"a mean": partial(_scores, join=lambda fit, g: fit.mean(-1))},
        "here it is a hard one": {"the best word": partial(_scores, join=lambda fit, g: fit.amax(-1))},
        "γ₂ must sharpen": {"no γ₂": partial(_scores, join=lambda fit, g: fit.logsumexp(-1))},
        "here it is not": {"not divided": partial(_scores, join=lambda fit, g: (g[1] * fit).logsumexp(-1))},
        "here by a product": {"a product": partial(_scores, fit=lambda c, w: (c * w).sum(-1))},
        "Padding must change no score": {"no mask": _unmasked, "padding counts 0": partial(_scores, padding=0.0)},
        "none comes to regions": {"regions are constants": deaf(word_region_scores, 0)},
    },
    "damsm_loss": {
        "here only pictures pick": {"rows": partial(_damsm, ways=(1, 0))},
        "here only texts pick": {"columns": partial(_damsm, ways=(0, 1))},
        "here it is their sum": {"a sum": partial(_damsm, ways=(1, 1))},
        "here only words do": {"words alone": partial(_damsm, kinds=(1, 0))},
        "here only the whole does": {"the whole alone": partial(_damsm, kinds=(0, 1))},
        "here it is their mean": {"a mean": partial(_damsm, kinds=(0.5, 0.5))},
        "γ₃ must sharpen": {"no γ₃": partial(_damsm, third=lambda g: 1)},
        "here it divides": {"divided": partial(_damsm, third=lambda g: 1 / g[2])},
        "here by a product": {"products": partial(_damsm, unit=lambda x: x)},
        "each both ways": {"γ₁ and γ₂ as they are": partial(_damsm, first=lambda g: (5.0, 5.0))},
        "none comes to sentence": {"the sentence is a constant": deaf(_damsm, 3)},
    },
}
