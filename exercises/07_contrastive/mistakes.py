"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][name] = (function, fragment)``."""

from functools import partial

import torch
import torch.nn.functional as F
from einops import einsum

from mmlearn.evaluation import recall_at
from mmlearn.evaluation.retrieval import ranks
from mmlearn.objectives import info_nce, late_interaction, pair_cross_entropy, pairwise_sigmoid, ranking_hinge

# Objectives.


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
    """The summed cost of all pairs, or one that differs in a single place."""
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
    """Late interaction, or one that differs in a single place."""
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
    """Patch k looks at words near place k only."""
    pairs = einsum(image, text, "i p d, j t d -> i j p t")
    p, t = pairs.shape[-2:]
    far = (torch.arange(p)[:, None] - torch.arange(t)).abs() > 1
    pairs = pairs.masked_fill(far, 0)
    return pairs.amax(-1).mean(-1), pairs.amax(-2).mean(-1).T


def _hinge(image, text, margin=0.2, hardest=False, positives=None, *, diagonal=False, both=True, clamp=True, power=1):
    """The ranking hinge, or one that differs in a single place."""
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


# Measures.


def _right(similarity, positives):
    return torch.eye(*similarity.shape, dtype=torch.bool) if positives is None else positives


def _ranks(similarity, positives=None, *, above=torch.gt, others=True, best=torch.amax, start=0):
    """The ranks, or what differs in a single place."""
    right = _right(similarity, positives)
    worst = torch.inf if best is torch.amin else -torch.inf
    level = best(similarity.masked_fill(~right, worst), 1, keepdim=True)
    better = above(similarity, level) & (~right if others else torch.tensor(True))
    equal = similarity == level
    return start + better.sum(1), (equal & ~right).sum(1), (equal & right).sum(1)


def _level_counts_itself(similarity, positives=None):
    better, wrong, right = ranks(similarity, positives)
    return better, wrong + right, right


def _right_counts_all(similarity, positives=None):
    better, wrong, _ = ranks(similarity, positives)
    return better, wrong, _right(similarity, positives).sum(1)


def _recall(k, similarity, positives=None, *, first):
    """``first`` makes the rank of the first right item, from 0, of what :func:`ranks` returns."""
    return (first(*ranks(similarity, positives)) < k).float().mean()


def _topk(k, similarity, positives=None, *, share=lambda hits, k, right: hits.amax(1)):
    right = _right(similarity, positives).float()
    hits = right.gather(1, similarity.topk(k, 1).indices)
    return share(hits, k, right).mean()


def _with_putting_back(k, similarity, positives=None):
    better, wrong, right = ranks(similarity, positives)
    return (1 - (wrong / (wrong + right)) ** (k - better).clamp(min=0)).mean()


def _share_of_places(k, similarity, positives=None):
    better, wrong, right = ranks(similarity, positives)
    return ((k - better) / (wrong + right)).clamp(0, 1).mean()


def _median(similarity, positives=None, *, rank=lambda b, w, r: 1 + b + w / (r + 1), middle=None):
    middle = middle or (lambda x: x.quantile(0.5))
    return middle(rank(*ranks(similarity, positives)))


MISTAKES = {
    "info_nce": {
        "pictures pick only": (
            lambda u, v, s: F.cross_entropy(s * u @ v.T, torch.arange(len(u))),
            "the same when pictures and texts change places",
        ),
        "sum of both directions": (lambda u, v, s: 2 * info_nce(u, v, s), "know nothing: the loss must be ln b"),
        "sum over pairs": (lambda u, v, s: len(u) * info_nce(u, v, s), "know nothing: the loss must be ln b"),
        "one answer a pair": (_each_pair, "must have shape ()"),
        "the match is not in the softmax": (_without_the_match, "know nothing: the loss must be ln b"),
        "divides by logit_scale": (
            lambda u, v, s: _both(u @ v.T / s),
            "Perfect embeddings at a large logit_scale: The loss must be 0",
        ),
        "softmax before cross-entropy": (
            lambda u, v, s: _both((s * u @ v.T).softmax(-1)),
            "Perfect embeddings at a large logit_scale: The loss must be 0",
        ),
        "forgets logit_scale": (lambda u, v, s: _both(u @ v.T), "Perfect embeddings at a large logit_scale"),
        "exponentiates twice": (lambda u, v, s: _both(s.exp() * u @ v.T), "At logit_scale 0 all logits are equal"),
        "exp that overflows": (_exp_over_sum, "At logit_scale 100: Its result must be finite"),
        "targets from within a modality": (_soft_targets, "mean of -log softmax at the matching pairs"),
        "no gradient": (lambda u, v, s: torch.tensor(info_nce(u, v, s).item()), "A gradient must flow from the result"),
        "texts detached": (lambda u, v, s: info_nce(u, v.detach(), s), "A gradient must flow to every input"),
    },
    "same_caption": {
        "the diagonal": (lambda ids: torch.eye(len(ids), dtype=torch.bool), "also off the diagonal"),
        "numbers": (lambda ids: (ids[:, None] == ids).float(), "It must be boolean; this is torch.float32"),
        "all but itself": (
            lambda ids: (ids[:, None] == ids) & ~torch.eye(len(ids), dtype=torch.bool),
            "the diagonal is True",
        ),
        "the reverse": (lambda ids: ids[:, None] != ids, "the diagonal is True"),
        "each with itself": (lambda ids: ids == ids, "must have shape (6, 6); this one has (6,)"),
        "both are repeated": (_both_repeated, "that both are repeated is not enough"),
    },
    "pair_cross_entropy": {
        "the first matrix transposed": (lambda z, y, p=None: pair_cross_entropy(z, z.T, p), "use the second matrix"),
        "pictures only": (
            lambda z, y, p=None: F.cross_entropy(z, torch.arange(len(z)) if p is None else _spread(p)),
            "the loss is the mean of both",
        ),
        "a sum of both": (lambda z, y, p=None: 2 * pair_cross_entropy(z, y, p), "the loss is the mean of both"),
        "ignores positives": (lambda z, y, p=None: pair_cross_entropy(z, y), "It must use positives"),
        "targets that sum to more than 1": (
            _with_positives(lambda z, y, p: _targets(z, y, p.float(), p.T.float())),
            "however many columns fit",
        ),
        "log of the sum": (_with_positives(_log_of_the_sum), "however many columns fit"),
        "positives not transposed": (
            _with_positives(lambda z, y, p: _targets(z, y, _spread(p), _spread(p))),
            "positives must be transposed",
        ),
        "transposed after dividing": (
            _with_positives(lambda z, y, p: _targets(z, y, _spread(p), _spread(p).T)),
            "spread evenly over all columns that fit",
        ),
        "the first that fits": (_with_positives(_first_that_fits), "spread evenly over all columns that fit"),
        "yes or no for each pair": (
            _with_positives(lambda z, y, p: F.binary_cross_entropy_with_logits(z, p.float())),
            "With positives on the diagonal only",
        ),
    },
    "pairwise_sigmoid": {
        "mean over b²": (lambda u, *rest: _questions(u, *rest) / len(u) ** 2, "each of the b² pairs costs ln 2"),
        "sum over b²": (_questions, "each of the b² pairs costs ln 2"),
        "matching pairs only": (
            lambda u, v, s, b, p=None, c=None: -F.logsigmoid(s * (u * v).sum(-1) + b).mean(),
            "each of the b² pairs costs ln 2",
        ),
        "softmax": (lambda u, v, s, b, p=None, c=None: _both(s * u @ v.T + b), "each of the b² pairs costs ln 2"),
        "exponentiates twice": (
            lambda u, v, s, *rest: _sigmoid(u, v, s.exp(), *rest),
            "each of the b² pairs costs ln 2",
        ),
        "signs reversed": (partial(_sigmoid, sign=-1), "Matching pairs must cost nearly nothing"),
        "bias subtracted": (
            lambda u, v, s, b, *rest: _sigmoid(u, v, s, -b, *rest),
            "Only the b matching pairs must pay",
        ),
        "bias after the sign": (_biased_after_the_sign, "Only the b matching pairs must pay"),
        "no bias": (lambda u, v, s, b, *rest: _sigmoid(u, v, s, 0 * b, *rest), "Only the b matching pairs must pay"),
        "log of a sigmoid": (
            partial(_sigmoid, log=lambda x: x.sigmoid().log()),
            "With logits of ±200: Its result must be finite",
        ),
        "sigmoid cut off": (
            partial(_sigmoid, log=lambda x: (x.sigmoid() + 1e-12).log()),
            "A wrong answer so sure must cost about 200",
        ),
        "divides by the scale": (
            lambda u, v, s, *rest: _sigmoid(u, v, 1 / s.clamp(min=1e-9), *rest),
            "each of the b² pairs costs ln 2",
        ),
        "ignores positives": (
            lambda u, v, s, b, p=None, c=None: pairwise_sigmoid(u, v, s, b),
            "Every pair that positives marks must count",
        ),
        "positives transposed": (
            lambda u, v, s, b, p=None, c=None: pairwise_sigmoid(u, v, s, b, p if p is None else p.T),
            "entry (i, j) is picture i and text j",
        ),
        "mean of chunks": (_mean_of_chunks, "in one piece"),
        "whole chunks only": (_whole_chunks_only, "in one piece"),
        "chunks of both": (_chunks_of_pairs, "In chunks of 2 pictures"),
        "no gradient": (lambda *args: pairwise_sigmoid(*args).detach(), "A gradient must flow from the result"),
    },
    "late_interaction": {
        "sum over tokens": (partial(_late, mean=torch.sum), "A mean of cosines must not exceed 1"),
        "mean of all pairs": (partial(_late, best=torch.mean, mend=False), "each token finds its twin"),
        "directions swapped": (_swapped, "here every word finds its patch"),
        "one matrix for both": (
            lambda u, v, m=None: (late_interaction(u, v, m)[0], late_interaction(u, v, m)[0].T),
            "1 from the picture, and 1/4 from the text",
        ),
        "not transposed": (
            lambda u, v, m=None: (late_interaction(u, v, m)[0], late_interaction(u, v, m)[1].T),
            "must have shape (4, 3)",
        ),
        "one direction": (lambda u, v, m=None: late_interaction(u, v, m)[0], "It must return two matrices"),
        "neighbours only": (_neighbours, "The order of patches must not matter"),
        "padding is 0": (partial(_late, hide=0), "Padding must never be the best word"),
        "padding counts": (partial(_late, real=False), "A mean over words must be over the real ones only"),
        "ignores the mask": (_no_mask, "What stands in padding must not matter, picture → text"),
        "mask in the mean only": (_only_in_the_mean, "What stands in padding must not matter, picture → text"),
        "no words at all": (partial(_late, mend=False), "With a text without words: Its similarity must be 0"),
        "0 words by 0": (_nothing_by_nothing, "With a text without words: Its similarity must be 0"),
    },
    "ranking_hinge": {
        "a rival of its own": (partial(_hinge, diagonal=True), "a pair is no rival of its own"),
        "no hinge": (partial(_hinge, clamp=False), "Where every pair wins by more than the margin"),
        "right minus wrong": (
            lambda u, v, *rest: _hinge(-u, v, *rest),
            "Where every pair wins by more than the margin",
        ),
        "one direction": (partial(_hinge, both=False), "rivals in its row and b - 1 in its column"),
        "mean over rivals": (
            lambda u, v, *rest: _hinge(u, v, *rest) / (len(u) - 1),
            "rivals in its row and b - 1 in its column",
        ),
        "sum over pairs": (lambda u, v, *rest: _hinge(u, v, *rest) * len(u), "rivals in its row and b - 1"),
        "squared": (partial(_hinge, power=2), "rivals in its row and b - 1 in its column"),
        "ignores hardest": (lambda u, v, a=0.2, h=False, p=None: _hinge(u, v, a, False, p), "keep the largest term"),
        "one hardest for both": (_hardest_of_both, "of each row, and of each column"),
        "the other pair's margin": (_hinge_by_columns, "of each row, and of each column"),
        "another default": (
            lambda u, v, margin=1.0, hardest=False, p=None: _hinge(u, v, margin, hardest, p),
            "the margin must be 0.2",
        ),
        "ignores positives": (
            lambda u, v, a=0.2, h=False, p=None: _hinge(u, v, a, h),
            "A text that fits must not count as a rival",
        ),
        "no gradient": (lambda *args: _hinge(*args).detach(), "A gradient must flow from the result"),
    },
    "modality_gap": {
        "distance of pairs": (lambda u, v: (u - v).norm(dim=-1).mean(), "The same points in another order"),
        "squared": (lambda u, v: (u.mean(0) - v.mean(0)).square().sum(), "Expected 3, got 9"),
        "mean over features": (lambda u, v: (u.mean(1) - v.mean(1)).norm(), "The same points in another order"),
        "sum of differences": (lambda u, v: (u.mean(0) - v.mean(0)).abs().sum(), "a step of length 3 must have gap 3"),
        "root of the mean": (
            lambda u, v: (u.mean(0) - v.mean(0)).square().mean().sqrt(),
            "a step of length 3 must have gap 3",
        ),
        "directions of the means": (
            lambda u, v: (F.normalize(u.mean(0), dim=0) - F.normalize(v.mean(0), dim=0)).norm(),
            "a step of length 3 must have gap 3",
        ),
        "one number a feature": (lambda u, v: u.mean(0) - v.mean(0), "must return one number"),
    },
    "zero_shot": {
        "a count": (lambda u, c, y: ((u @ c.T).argmax(-1) == y).sum(), "must all be right. Expected 1, got 200"),
        "percent": (lambda u, c, y: 100 * ((u @ c.T).argmax(-1) == y).float().mean(), "Expected 1, got 100"),
        "the farthest name": (lambda u, c, y: ((u @ c.T).argmin(-1) == y).float().mean(), "Expected 1, got 0"),
        "argmax over pictures": (lambda u, c, y: ((u @ c.T).argmax(0) == y).float().mean(), "It stops in line"),
        "among the first two": (
            lambda u, c, y: ((u @ c.T).topk(2).indices == y[:, None]).any(-1).float().mean(),
            "whose right name comes second must all be wrong",
        ),
        "one answer a picture": (lambda u, c, y: (u @ c.T).argmax(-1) == y, "must return one number"),
        "any that is near": (
            lambda u, c, y: ((u @ c.T).gather(1, y[:, None]) > 0.5).float().mean(),
            "the share of pictures whose nearest name is right",
        ),
    },
    "ranks": {
        "counts from 1": (partial(_ranks, start=1), "0 if it comes first"),
        "below instead of above": (partial(_ranks, above=torch.lt), "0 if it comes first"),
        "along columns": (
            lambda s, p=None: ranks(s, p) if p is not None else (ranks(s[:, : len(s)].T)[0], *ranks(s)[1:]),
            "compare along the row",
        ),
        "level is better": (partial(_ranks, above=torch.ge), "In a flat row nothing must be better"),
        "level counts itself": (_level_counts_itself, "Without ties, wrong must be 0"),
        "only itself is right": (lambda s, p=None: ranks(s), "the best of them must count"),
        "the worst right one": (partial(_ranks, best=torch.amin), "the best of them must count"),
        "right ones may be better": (
            lambda s, p=None: ((s > s.diagonal()[:, None]).sum(1), *ranks(s, p)[1:]),
            "the best of them must count",
        ),
        "counts all right ones": (_right_counts_all, "level with the best one"),
        "one tensor": (lambda s, p=None: ranks(s, p)[0], "It must return three tensors"),
        "no ties": (
            lambda s, p=None: (ranks(s, p)[0], 0 * ranks(s, p)[1], ranks(s, p)[2]),
            "all wrong items must be level",
        ),
    },
    "recall_at": {
        "k + 1 items": (partial(_recall, first=lambda b, w, r: b - 1), "Where it comes last, R@k must be 0"),
        "rank from 1 below k": (partial(_recall, first=lambda b, w, r: b + 1), "Where the right item comes first"),
        "a count": (lambda k, s, p=None: _topk(k, s, p) * len(s), "a share, not a count"),
        "precision": (partial(_topk, share=lambda hits, k, right: hits.sum(1) / k), "any of the first k, not over k"),
        "share of the right ones": (
            partial(_topk, share=lambda hits, k, right: hits.sum(1) / right.sum(1)),
            "one among the first k must be enough",
        ),
        "columns for queries": (
            lambda k, s, p=None: (s.topk(k, 0).indices == torch.arange(s.shape[1])).any(0).float().mean(),
            "Each row is a query",
        ),
        "ignores positives": (lambda k, s, p=None: recall_at(k, s), "one among the first k must be enough"),
        "topk breaks ties by place": (_topk, "A flat similarity knows nothing"),
        "ties win": (partial(_recall, first=lambda b, w, r: b), "A flat similarity knows nothing"),
        "ties lose": (partial(_recall, first=lambda b, w, r: b + w), "A flat similarity knows nothing"),
        "the mean rank": (partial(_recall, first=lambda b, w, r: b + w / (r + 1)), "A flat similarity knows nothing"),
        "draws with putting back": (_with_putting_back, "A flat similarity knows nothing"),
        "share of places": (_share_of_places, "1 - 6/8 · 5/7 · 4/6"),
    },
    "median_rank": {
        "counts from 0": (partial(_median, rank=lambda b, w, r: b + w / (r + 1)), "comes first, it must be 1"),
        "the mean": (partial(_median, middle=torch.mean), "the median, not the mean"),
        "the lower of two": (partial(_median, middle=torch.median), "the mean of the middle two"),
        "ties win": (partial(_median, rank=lambda b, w, r: 1 + b), "the rank of a guess"),
        "ties lose": (partial(_median, rank=lambda b, w, r: 1 + b + w), "the rank of a guess"),
        "half of the ties": (partial(_median, rank=lambda b, w, r: 1 + b + w / 2), "1 + 6/3 on average"),
        "ignores positives": (lambda s, p=None: _median(s), "1 + 6/3 on average"),
        "one rank a query": (
            lambda s, p=None: 1 + ranks(s, p)[0],
            "must return one number, not a Tensor of shape (8,)",
        ),
    },
}
