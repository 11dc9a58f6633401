"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F

from mmlearn.evaluation import recall_at
from mmlearn.evaluation.retrieval import ranks


def _right(similarity, positives):
    return torch.eye(*similarity.shape, dtype=torch.bool) if positives is None else positives


def _ranks(similarity, positives=None, *, above=torch.gt, others=True, best=torch.amax, start=0):
    """The ranks, or what differs in a single position."""
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


def _by_drawing(k, similarity, positives=None):
    """One position after another is drawn from the level items; what is missed is multiplied."""
    better, wrong, right = (x.double() for x in ranks(similarity, positives))
    missed = torch.ones_like(better)
    for position in range(k):
        drawn = (position - better).clamp(min=0)  # as many wrong ones are gone
        here = (wrong - drawn).clamp(min=0) / (wrong + right - drawn).clamp(min=1)
        missed = missed * torch.where(better <= position, here, 1.0)
    return float(1 - missed.mean())


def _with_putting_back(k, similarity, positives=None):
    better, wrong, right = ranks(similarity, positives)
    return (1 - (wrong / (wrong + right)) ** (k - better).clamp(min=0)).mean()


def _share_of_positions(k, similarity, positives=None):
    better, wrong, right = ranks(similarity, positives)
    return ((k - better) / (wrong + right)).clamp(0, 1).mean()


def _median(similarity, positives=None, *, rank=lambda b, w, r: 1 + b + w / (r + 1), middle=None):
    middle = middle or (lambda x: x.quantile(0.5))
    return middle(rank(*ranks(similarity, positives)))


RIGHT = {  # right answers that are written in another way than the library's
    "modality_gap": lambda u, v: torch.dist(u.mean(0), v.mean(0)),
    "zero_shot": lambda u, c, y: ((u @ c.T).argmax(-1) == y).float().mean(),
    "ranks": _ranks,
    "recall_at": _by_drawing,
    "median_rank": _median,
}

MISTAKES = {
    "modality_gap": {
        "The same points in another order": {
            "distance of pairs": lambda u, v: (u - v).norm(dim=-1).mean(),
            "mean over features": lambda u, v: (u.mean(1) - v.mean(1)).norm(),
        },
        "a step of length 3 must have gap 3": {
            "squared": lambda u, v: (u.mean(0) - v.mean(0)).square().sum(),
            "sum of differences": lambda u, v: (u.mean(0) - v.mean(0)).abs().sum(),
            "root of the mean": lambda u, v: (u.mean(0) - v.mean(0)).square().mean().sqrt(),
            "directions of the means": lambda u, v: (
                F.normalize(u.mean(0), dim=0) - F.normalize(v.mean(0), dim=0)
            ).norm(),
        },
        "must return one number": {"one number a feature": lambda u, v: u.mean(0) - v.mean(0)},
    },
    "zero_shot": {
        "must all be right. Expected 1, got 200": {"a count": lambda u, c, y: ((u @ c.T).argmax(-1) == y).sum()},
        "Expected 1, got 100": {"percent": lambda u, c, y: 100 * ((u @ c.T).argmax(-1) == y).float().mean()},
        "Expected 1, got 0": {"the farthest name": lambda u, c, y: ((u @ c.T).argmin(-1) == y).float().mean()},
        "It stops in line": {"argmax over pictures": lambda u, c, y: ((u @ c.T).argmax(0) == y).float().mean()},
        "whose right name comes second must all be wrong": {
            "among the first two": lambda u, c, y: ((u @ c.T).topk(2).indices == y[:, None]).any(-1).float().mean()
        },
        "must return one number": {"one answer a picture": lambda u, c, y: (u @ c.T).argmax(-1) == y},
        "the share of pictures whose nearest name is right": {
            "any that is near": lambda u, c, y: ((u @ c.T).gather(1, y[:, None]) > 0.5).float().mean()
        },
    },
    "ranks": {
        "0 if it comes first": {
            "counts from 1": partial(_ranks, start=1),
            "below instead of above": partial(_ranks, above=torch.lt),
            "along columns": lambda s, p=None: (
                ranks(s, p) if p is not None else (ranks(s[:, : len(s)].T)[0], *ranks(s)[1:])
            ),
        },
        "In a flat row nothing must be better": {"level is better": partial(_ranks, above=torch.ge)},
        "Without ties, wrong must be 0": {"level counts itself": _level_counts_itself},
        "the best of them must count": {
            "only itself is right": lambda s, p=None: ranks(s),
            "the worst right one": partial(_ranks, best=torch.amin),
            "right ones may be better": lambda s, p=None: ((s > s.diagonal()[:, None]).sum(1), *ranks(s, p)[1:]),
        },
        "level with the best one": {"counts all right ones": _right_counts_all},
        "It must return better, wrong and right": {"one tensor": lambda s, p=None: ranks(s, p)[0]},
        "all wrong items must be level": {
            "no ties": lambda s, p=None: (ranks(s, p)[0], 0 * ranks(s, p)[1], ranks(s, p)[2])
        },
    },
    "recall_at": {
        "Where it comes last, R@k must be 0": {"k + 1 items": partial(_recall, first=lambda b, w, r: b - 1)},
        "Where the right item comes first": {
            "rank from 1 below k": partial(_recall, first=lambda b, w, r: b + 1),
            "a count": lambda k, s, p=None: _topk(k, s, p) * len(s),
        },
        "any of the first k, not over k": {"precision": partial(_topk, share=lambda hits, k, right: hits.sum(1) / k)},
        "one among the first k must be enough": {
            "share of the right ones": partial(_topk, share=lambda hits, k, right: hits.sum(1) / right.sum(1)),
            "ignores positives": lambda k, s, p=None: recall_at(k, s),
        },
        "Each row is a query": {
            "columns for queries": lambda k, s, p=None: (
                (s.topk(k, 0).indices == torch.arange(s.shape[1])).any(0).float().mean()
            )
        },
        "A flat similarity knows nothing": {
            "topk breaks ties by position": _topk,
            "ties win": partial(_recall, first=lambda b, w, r: b),
            "ties lose": partial(_recall, first=lambda b, w, r: b + w),
            "the mean rank": partial(_recall, first=lambda b, w, r: b + w / (r + 1)),
            "draws with putting back": _with_putting_back,
        },
        "1 - 6/8 · 5/7 · 4/6": {"share of positions": _share_of_positions},
    },
    "median_rank": {
        "comes first, it must be 1": {"counts from 0": partial(_median, rank=lambda b, w, r: b + w / (r + 1))},
        "the median, not the mean": {"the mean": partial(_median, middle=torch.mean)},
        "the mean of the middle two": {"the lower of two": partial(_median, middle=torch.median)},
        "the rank of a guess": {
            "ties win": partial(_median, rank=lambda b, w, r: 1 + b),
            "ties lose": partial(_median, rank=lambda b, w, r: 1 + b + w),
        },
        "1 + 6/3 on average": {
            "half of the ties": partial(_median, rank=lambda b, w, r: 1 + b + w / 2),
            "ignores positives": lambda s, p=None: _median(s),
        },
        "must return one number, not a Tensor of shape (8,)": {
            "one rank a query": lambda s, p=None: 1 + ranks(s, p)[0]
        },
    },
}
