"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import detached, then
from einops import einsum

from mmlearn.objectives import info_nce, late_interaction, pair_cross_entropy, pairwise_sigmoid, ranking_hinge


def _both(logits):
    """The mean cross-entropy of rows and of columns."""
    return pair_cross_entropy(logits, logits.T)


def _soft_targets(image, text, scale):
    """The loss of a much-copied CLIP tutorial: targets from similarities within each modality."""
    logits = scale * image @ text.T
    target = ((image @ image.T + text @ text.T) / 2 * scale).softmax(-1)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target.T)) / 2


def _exp_over_sum(image, text, scale):
    e = (scale * image @ text.T).exp()
    return -((e.diagonal() / e.sum(0)).log() + (e.diagonal() / e.sum(1)).log()).mean() / 2


def _without_the_match(image, text, scale):
    logits = scale * image @ text.T
    others = logits.masked_fill(torch.eye(len(logits), dtype=torch.bool), -torch.inf)
    return ((others.logsumexp(0) + others.logsumexp(1)) / 2 - logits.diagonal()).mean()


def _each_pair(image, text, scale):
    logits, target = scale * image @ text.T, torch.arange(len(image))
    return (F.cross_entropy(logits, target, reduction="none") + F.cross_entropy(logits.T, target, reduction="none")) / 2


def _both_repeated(ids):
    repeated = (ids[:, None] == ids).sum(1) > 1
    return (repeated[:, None] & repeated) | torch.eye(len(ids), dtype=torch.bool)


def _targets(by_image, by_text, by_image_target, by_text_target):
    return (F.cross_entropy(by_image, by_image_target) + F.cross_entropy(by_text, by_text_target)) / 2


def _spread(positives):
    return positives / positives.sum(1, keepdim=True)


def _with_positives(several):
    """The right answer without positives, ``several`` with them."""

    def objective(by_image, by_text, positives=None):
        return pair_cross_entropy(by_image, by_text) if positives is None else several(by_image, by_text, positives)

    return objective


def _log_of_the_sum(by_image, by_text, positives):
    rows = [
        z.log_softmax(1).masked_fill(~fits, -torch.inf).logsumexp(1)
        for z, fits in ((by_image, positives), (by_text, positives.T))
    ]
    return -torch.stack(rows).mean()


def _first_that_fits(by_image, by_text, positives):
    return _targets(by_image, by_text, positives.int().argmax(1), positives.T.int().argmax(1))


def _questions(image, text, scale, bias, positives=None, chunk=None, *, sign=1, log=F.logsigmoid):
    """The summed cost of all pairs, or one that differs in a single position."""
    positives = torch.eye(len(image), dtype=torch.bool) if positives is None else positives
    z = sign * torch.where(positives, 1.0, -1.0)
    return -log(z * (scale * image @ text.T + bias)).sum()


def _sigmoid(image, *rest, **wrong):
    return _questions(image, *rest, **wrong) / len(image)


def _biased_after_the_sign(image, text, scale, bias, positives=None, chunk=None):
    positives = torch.eye(len(image), dtype=torch.bool) if positives is None else positives
    return -F.logsigmoid(torch.where(positives, 1.0, -1.0) * scale * (image @ text.T) + bias).sum() / len(image)


def _mean_of_chunks(image, text, scale, bias, positives=None, chunk=None):
    if chunk is None:
        return _sigmoid(image, text, scale, bias, positives)
    parts = zip(image.split(chunk), positives.split(chunk))
    return torch.stack([_questions(u, text, scale, bias, fits) / len(u) for u, fits in parts]).mean()


def _whole_chunks_only(image, text, scale, bias, positives=None, chunk=None):
    if chunk is None:
        return _sigmoid(image, text, scale, bias, positives)
    starts = range(0, len(image) // chunk * chunk, chunk)
    parts = [_questions(image[i : i + chunk], text, scale, bias, positives[i : i + chunk]) for i in starts]
    return sum(parts) / len(image)


def _chunks_of_pairs(image, text, scale, bias, positives=None, chunk=None):
    if chunk is None:
        return _sigmoid(image, text, scale, bias, positives)
    parts = [
        _questions(image[i : i + chunk], text[i : i + chunk], scale, bias, positives[i : i + chunk, i : i + chunk])
        for i in range(0, len(image), chunk)
    ]
    return sum(parts) / len(image)


def _late(image, text, mask=None, *, best=torch.amax, mean=torch.mean, hide=-torch.inf, real=True, mend=True):
    """Late interaction, or one that differs in a single position."""
    mask = torch.ones(text.shape[:2], dtype=torch.bool) if mask is None else mask
    pairs = einsum(image, text, "i p d, j t d -> i j p t")
    words = mask[:, None]
    masked = pairs * words if hide == 0 else pairs.masked_fill(~words, hide)
    by_image = mean(best(masked, -1), -1)
    best_patch = best(pairs, -2) * mask
    by_text = mean(best_patch, -1) * (mask.shape[1] / mask.sum(-1).clamp(min=1) if real else 1)
    if mend:
        by_image = by_image.masked_fill(~mask.any(-1), 0)
    return by_image, by_text.T


def _no_mask(image, text, mask=None):
    return late_interaction(image, text)


def _only_in_the_mean(image, text, mask=None):
    by_image = late_interaction(image, text)[0]
    return by_image, late_interaction(image, text, mask)[1]


def _nothing_by_nothing(image, text, mask=None):
    by_image, by_text = late_interaction(image, text, mask)
    empty = torch.zeros(len(text), dtype=torch.bool) if mask is None else ~mask.any(-1)
    return by_image, by_text.masked_fill(empty[:, None], torch.nan)


def _swapped(image, text, mask=None):
    by_image, by_text = late_interaction(image, text, mask)
    return by_text.T, by_image.T


def _neighbours(image, text, mask=None):
    """Patch k looks at words near position k only."""
    pairs = einsum(image, text, "i p d, j t d -> i j p t")
    p, t = pairs.shape[-2:]
    far = (torch.arange(p)[:, None] - torch.arange(t)).abs() > 1
    pairs = pairs.masked_fill(far, 0)
    return pairs.amax(-1).mean(-1), pairs.amax(-2).mean(-1).T


def _hinge(image, text, margin=0.2, hardest=False, positives=None, *, diagonal=False, both=True, clamp=True, power=1):
    """The ranking hinge, or one that differs in a single position."""
    similarity = image @ text.T
    positives = torch.eye(len(image), dtype=torch.bool) if positives is None else positives
    over = []
    for s, fits in ((similarity, positives), (similarity.T, positives.T))[: 2 if both else 1]:
        term = margin + s - s.diagonal()[:, None]
        term = (term.clamp(min=0) if clamp else term) ** power
        over.append(term if diagonal else term.masked_fill(fits, 0))
    return sum(term.amax(1) if hardest else term.sum(1) for term in over).mean()


def _hinge_by_columns(image, text, margin=0.2, hardest=False, positives=None):
    """Row i is compared with the right pair of column j: the same sum, but another hardest rival."""
    similarity = image @ text.T
    positives = torch.eye(len(image), dtype=torch.bool) if positives is None else positives
    over = [
        (margin + s - s.diagonal()).clamp(min=0).masked_fill(fits, 0)
        for s, fits in ((similarity, positives), (similarity.T, positives.T))
    ]
    return sum(term.amax(1) if hardest else term.sum(1) for term in over).mean()


def _hardest_of_both(image, text, margin=0.2, hardest=False, positives=None):
    if not hardest:
        return ranking_hinge(image, text, margin, False, positives)
    halves = [_hinge(u, v, margin, True, positives, both=False) for u, v in ((image, text), (text, image))]
    return torch.stack(halves).amax()


RIGHT = {  # right answers that are written in another way than the library's
    "info_nce": lambda u, v, s: _both(s * u @ v.T),
    "same_caption": lambda ids: (ids[:, None] - ids) == 0,
    "pair_cross_entropy": _with_positives(lambda z, y, p: _targets(z, y, _spread(p), _spread(p.T))),
    "pairwise_sigmoid": _sigmoid,
    "late_interaction": _late,
    "ranking_hinge": _hinge,
}

MISTAKES = {
    "info_nce": {
        "the same when pictures and texts change places": {
            "pictures pick only": lambda u, v, s: F.cross_entropy(s * u @ v.T, torch.arange(len(u)))
        },
        "know nothing: the loss must be ln b": {
            "sum of both directions": then(info_nce, lambda y: 2 * y),
            "sum over pairs": lambda u, v, s: len(u) * info_nce(u, v, s),
            "the match is not in the softmax": _without_the_match,
        },
        "must have shape ()": {"one answer a pair": _each_pair},
        "Perfect embeddings at a large logit_scale: The loss must be 0": {
            "divides by logit_scale": lambda u, v, s: _both(u @ v.T / s),
            "softmax before cross-entropy": lambda u, v, s: _both((s * u @ v.T).softmax(-1)),
            "forgets logit_scale": lambda u, v, s: _both(u @ v.T),
        },
        "At logit_scale 0 all logits are equal": {"exponentiates twice": lambda u, v, s: _both(s.exp() * u @ v.T)},
        "At logit_scale 100: Its result must be finite": {"exp that overflows": _exp_over_sum},
        "mean of -log softmax at the matching pairs": {"targets from within a modality": _soft_targets},
        "A gradient must flow from the result": {"no gradient": then(info_nce, lambda y: torch.tensor(y.item()))},
        "A gradient must flow to every input": {"texts detached": lambda u, v, s: info_nce(u, v.detach(), s)},
    },
    "same_caption": {
        "also off the diagonal": {"the diagonal": lambda ids: torch.eye(len(ids), dtype=torch.bool)},
        "It must be boolean; this is torch.float32": {"numbers": lambda ids: (ids[:, None] == ids).float()},
        "the diagonal is True": {
            "all but itself": lambda ids: (ids[:, None] == ids) & ~torch.eye(len(ids), dtype=torch.bool),
            "the reverse": lambda ids: ids[:, None] != ids,
        },
        "must have shape (6, 6); this one has (6,)": {"each with itself": lambda ids: ids == ids},
        "that both are repeated is not enough": {"both are repeated": _both_repeated},
    },
    "pair_cross_entropy": {
        "use the second matrix": {"the first matrix transposed": lambda z, y, p=None: pair_cross_entropy(z, z.T, p)},
        "the loss is the mean of both": {
            "pictures only": lambda z, y, p=None: F.cross_entropy(z, torch.arange(len(z)) if p is None else _spread(p)),
            "a sum of both": lambda z, y, p=None: 2 * pair_cross_entropy(z, y, p),
        },
        "It must use positives": {"ignores positives": lambda z, y, p=None: pair_cross_entropy(z, y)},
        "however many columns fit": {
            "targets that sum to more than 1": _with_positives(lambda z, y, p: _targets(z, y, p.float(), p.T.float())),
            "log of the sum": _with_positives(_log_of_the_sum),
        },
        "positives must be transposed": {
            "positives not transposed": _with_positives(lambda z, y, p: _targets(z, y, _spread(p), _spread(p)))
        },
        "spread evenly over all columns that fit": {
            "transposed after dividing": _with_positives(lambda z, y, p: _targets(z, y, _spread(p), _spread(p).T)),
            "the first that fits": _with_positives(_first_that_fits),
        },
        "With positives on the diagonal only": {
            "yes or no for each pair": _with_positives(lambda z, y, p: F.binary_cross_entropy_with_logits(z, p.float()))
        },
    },
    "pairwise_sigmoid": {
        "each of the b² pairs costs ln 2": {
            "mean over b²": lambda u, *rest: _questions(u, *rest) / len(u) ** 2,
            "sum over b²": _questions,
            "matching pairs only": lambda u, v, s, b, p=None, c=None: -F.logsigmoid(s * (u * v).sum(-1) + b).mean(),
            "softmax": lambda u, v, s, b, p=None, c=None: _both(s * u @ v.T + b),
            "exponentiates twice": lambda u, v, s, *rest: _sigmoid(u, v, s.exp(), *rest),
            "divides by the scale": lambda u, v, s, *rest: _sigmoid(u, v, 1 / s.clamp(min=1e-9), *rest),
        },
        "Matching pairs must cost nearly nothing": {"signs reversed": partial(_sigmoid, sign=-1)},
        "Only the b matching pairs must pay": {
            "bias subtracted": lambda u, v, s, b, *rest: _sigmoid(u, v, s, -b, *rest),
            "bias after the sign": _biased_after_the_sign,
            "no bias": lambda u, v, s, b, *rest: _sigmoid(u, v, s, 0 * b, *rest),
        },
        "With logits of ±200: Its result must be finite": {
            "log of a sigmoid": partial(_sigmoid, log=lambda x: x.sigmoid().log())
        },
        "A wrong answer so sure must cost about 200": {
            "sigmoid cut off": partial(_sigmoid, log=lambda x: (x.sigmoid() + 1e-12).log())
        },
        "Every pair that positives marks must count": {
            "ignores positives": lambda u, v, s, b, p=None, c=None: pairwise_sigmoid(u, v, s, b),
            "positives transposed": lambda u, v, s, b, p=None, c=None: pairwise_sigmoid(
                u, v, s, b, p if p is None else p.T
            ),
        },
        "in one piece": {
            "mean of chunks": _mean_of_chunks,
            "whole chunks only": _whole_chunks_only,
            "chunks of both": _chunks_of_pairs,
        },
        "A gradient must flow from the result": {"no gradient": detached(pairwise_sigmoid)},
    },
    "late_interaction": {
        "A mean of cosines must not exceed 1": {"sum over tokens": partial(_late, mean=torch.sum)},
        "each token finds its twin": {"mean of all pairs": partial(_late, best=torch.mean, mend=False)},
        "here every word finds its patch": {"directions swapped": _swapped},
        "1 from the picture, and 1/4 from the text": {
            "one matrix for both": lambda u, v, m=None: (late_interaction(u, v, m)[0], late_interaction(u, v, m)[0].T)
        },
        "must have shape (4, 3)": {
            "not transposed": lambda u, v, m=None: (late_interaction(u, v, m)[0], late_interaction(u, v, m)[1].T)
        },
        "It must return image_to_text and text_to_image": {
            "one direction": lambda u, v, m=None: late_interaction(u, v, m)[0]
        },
        "The order of patches must not matter": {"neighbours only": _neighbours},
        "Padding must never be the best word": {"padding is 0": partial(_late, hide=0)},
        "A mean over words must be over the real ones only": {"padding counts": partial(_late, real=False)},
        "What stands in padding must not matter, picture → text": {
            "ignores the mask": _no_mask,
            "mask in the mean only": _only_in_the_mean,
        },
        "With a text without words: Its similarity must be 0": {
            "no words at all": partial(_late, mend=False),
            "0 words by 0": _nothing_by_nothing,
        },
    },
    "ranking_hinge": {
        "a pair is no rival of its own": {
            "a rival of its own": partial(_hinge, diagonal=True),
            "no hinge": partial(_hinge, clamp=False),
            "right minus wrong": lambda u, v, *rest: _hinge(-u, v, *rest),
        },
        "rivals in its row and b - 1 in its column": {
            "one direction": partial(_hinge, both=False),
            "mean over rivals": lambda u, v, *rest: _hinge(u, v, *rest) / (len(u) - 1),
            "sum over pairs": lambda u, v, *rest: _hinge(u, v, *rest) * len(u),
            "squared": partial(_hinge, power=2),
        },
        "keep the largest term": {
            "ignores hardest": lambda u, v, a=0.2, h=False, p=None: _hinge(u, v, a, False, p),
            "one hardest for both": _hardest_of_both,
            "the other pair's margin": _hinge_by_columns,
        },
        "the margin must be 0.2": {
            "another default": lambda u, v, margin=1.0, hardest=False, p=None: _hinge(u, v, margin, hardest, p)
        },
        "A text that fits must not count as a rival": {
            "ignores positives": lambda u, v, a=0.2, h=False, p=None: _hinge(u, v, a, h)
        },
        "A gradient must flow from the result": {"no gradient": detached(_hinge)},
    },
}
