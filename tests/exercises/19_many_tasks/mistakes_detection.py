"""Wrong answers about sets and queries, and what each is told: ``MISTAKES[task][what it says][name]``."""

import itertools
import math
from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import deaf, detached, narrow, then

from mmlearn.objectives.boxes import centers_to_corners, generalised_iou
from mmlearn.objectives.set_matching import hungarian


def _overlap(one, other, *, clamp=True, once=True, less=lambda i, u, c: i / u - 1 + u / c):
    """Side by side, in which I / U - (C - U) / C = I / U - 1 + U / C, or what differs in a single position."""
    left, top, right, bottom = one.unbind(-1)
    x, y, end, foot = other.unbind(-1)
    wide, high = torch.min(right, end) - torch.max(left, x), torch.min(bottom, foot) - torch.max(top, y)
    shared = wide.relu() * high.relu() if clamp else wide * high
    union = (right - left) * (bottom - top) + (end - x) * (foot - y) - (shared if once else 0)
    around = (torch.max(right, end) - torch.min(left, x)) * (torch.max(bottom, foot) - torch.min(top, y))
    return less(shared, union, around)


def _each_way(cost, real):
    """All ways to match, of which the cheapest is taken."""
    match = torch.full(real.shape, -1)
    for row, there in enumerate(real):
        objects = there.nonzero()[:, 0].tolist()
        ways = itertools.permutations(range(cost.shape[1]), len(objects))
        best = min(ways, key=lambda way: sum(float(cost[row, i, j]) for i, j in zip(way, objects)))
        match[row, objects] = torch.tensor(best)
    return match


def _in_turn(cost, real):
    """Each object takes the best guess that is left."""
    match = torch.full(real.shape, -1)
    for row, there in enumerate(real):
        rest = cost[row].clone()
        for j in there.nonzero()[:, 0].tolist():
            match[row, j] = rest[:, j].argmin()
            rest[match[row, j]] = math.inf
    return match


def _cheapest_first(cost, real):
    """The cheapest pair of all, then the cheapest that is left."""
    match = torch.full(real.shape, -1)
    for row, there in enumerate(real):
        rest = cost[row].masked_fill(~there, math.inf)
        for _ in range(int(there.sum())):
            i, j = divmod(int(rest.argmin()), rest.shape[1])
            match[row, j] = i
            rest[i], rest[:, j] = math.inf, math.inf
    return match


def _with_padding(cost, real):
    return hungarian(cost, real | True).masked_fill(~real, -1)


def _packed(cost, real):
    """What is matched stands in front, whichever columns are real."""
    match = hungarian(cost, real)
    return torch.stack([torch.cat([row[row >= 0], row[row < 0]]) for row in match])


def _said(logits, match, classes, no_object_weight=0.1, *, empty=-1, weigh=None, padding=False, by=None, order=False):
    """Guess by guess, or what differs in a single position."""
    b, q, c = logits.shape
    empty, total, weights = empty % c, 0, 0
    for row in range(b):
        asked = [empty] * q
        for j, i in enumerate(match[row].tolist()):
            if i >= 0 or padding:
                asked[j if order else i] = int(classes[row, j])
        for i, label in enumerate(asked):
            weight = (weigh or (lambda label, empty, w: w if label == empty else 1.0))(label, empty, no_object_weight)
            total = total - weight * logits[row, i].log_softmax(-1)[label]
            weights += weight
    return total / (weights if by is None else by(weights, logits, match))


def _of_a_softmax(logits, match, classes, no_object_weight=0.1):
    return _said(logits.softmax(-1).clamp(min=1e-6).log(), match, classes, no_object_weight)


def _of_each_image(logits, match, classes, no_object_weight=0.1):
    rows = [
        _said(*(x[row : row + 1] for x in (logits, match, classes)), no_object_weight) for row in range(len(logits))
    ]
    return torch.stack(rows).mean()


def _row_by_row(context, queries, task, decoder, heads, *, own=None, read=lambda x: x[0], head=None, ask=None):
    """One row after another, or what differs in a single position."""
    own, head = own or (lambda k: queries[k]), head or (lambda k: heads[k])
    found = [[] for _ in queries]
    for i, k in enumerate(task.tolist()):
        found[k].append(head(k)(read(decoder(own(k)[:ask][None], context[i : i + 1])[0])[None]))
    empty = [heads[k](context[:0, 0]) for k in range(len(queries))]
    return tuple(torch.cat(rows) if rows else empty[k] for k, rows in enumerate(found))


RIGHT = {  # right answers that are written in another way than the library's
    "generalised_iou": _overlap,
    "hungarian": _each_way,
    "set_cross_entropy": _said,
    "solve_by_task": _row_by_row,
}

MISTAKES = {
    "generalised_iou": {
        "here all give 0": {"plain IoU": partial(_overlap, less=lambda i, u, c: i / u)},
        "this is the loss": {"the loss": then(generalised_iou, lambda x: 1 - x)},
        "two negative sides make an area": {"no clamp": partial(_overlap, clamp=False)},
        "must be a share of C": {"an area": partial(_overlap, less=lambda i, u, c: i / u - c + u)},
        "is divided by C, not by U": {"a share of U": partial(_overlap, less=lambda i, u, c: i / u - (c - u) / u)},
        "here it counts twice": {"A + B": partial(_overlap, once=False)},
        "here it is I / C": {"I / C": partial(_overlap, less=lambda i, u, c: i / c)},
        "here it is read as middle and size": {
            "middle and size": lambda one, other: generalised_iou(centers_to_corners(one), centers_to_corners(other))
        },
        "It must be I / U - (C - U) / C": {
            "added": partial(_overlap, less=lambda i, u, c: i / u + (c - u) / c),
            "never below 0": then(generalised_iou, torch.relu),
            "left, right, top, bottom": lambda one, other: generalised_iou(
                one[..., [0, 2, 1, 3]], other[..., [0, 2, 1, 3]]
            ),
            "less C": partial(_overlap, less=lambda i, u, c: i / u - (c - i) / c),
        },
        "none comes to other": {"the other box is a constant": deaf(generalised_iou, 1)},
        "With boxes of several pictures": {"two axes": narrow(generalised_iou)},
    },
    "hungarian": {
        "Padding has no guess": {
            "padding too": lambda cost, real: hungarian(cost, real | True),
            "0 for padding": lambda cost, real: hungarian(cost, real).clamp(min=0),
            "packed": _packed,
        },
        "No two objects may have the same": {
            "the best for each": lambda cost, real: cost.argmin(1).masked_fill(~real, -1)
        },
        "here it is the largest": {"the dearest": lambda cost, real: hungarian(-cost, real)},
        "Padding must take no guess": {"padding takes one": _with_padding},
        "here the best that is left is taken": {"greedy over pairs": _cheapest_first, "greedy over objects": _in_turn},
        "The sum ": {
            "the next guess": lambda cost, real: ((hungarian(cost, real) + 1) % cost.shape[1]).masked_fill(~real, -1)
        },
        "whole numbers": {"floats": then(hungarian, torch.Tensor.float)},
        "must have shape": {"a mask": lambda cost, real: F.one_hot(hungarian(cost, real).clamp(min=0))},
    },
    "set_cross_entropy": {
        "here it counts as all others do": {
            "no weight": lambda logits, match, classes, w=0.1: _said(logits, match, classes, 1.0)
        },
        "here they are left out": {
            "objects alone": lambda logits, match, classes, w=0.1: _said(logits, match, classes, 0.0)
        },
        "here it is that of objects": {
            "the other way round": partial(_said, weigh=lambda label, empty, w: 1.0 if label == empty else w)
        },
        "here it is by the number of guesses": {
            "over guesses": partial(_said, by=lambda weights, logits, match: logits[..., 0].numel())
        },
        "here it is by the number of objects": {
            "over objects": partial(_said, by=lambda weights, logits, match: int((match >= 0).sum()))
        },
        "here it is a sum": {"a sum": partial(_said, by=lambda weights, logits, match: 1)},
        "here it is class 0": {"class 0": partial(_said, empty=0)},
        "here match -1 means the last guess": {"padding too": partial(_said, padding=True)},
        "here guess j does": {"in the order of objects": partial(_said, order=True)},
        "the weighed cross-entropy": {"of each picture": _of_each_image},
        "With another weight": {"always 0.1": lambda logits, match, classes, w=0.1: _said(logits, match, classes, 0.1)},
        "must cost hundreds": {"a clamp": _of_a_softmax},
        "A gradient must flow": {"no gradient": detached(_said)},
    },
    "solve_by_task": {
        "here all ask one's": {
            "the first task's queries": lambda context, queries, *rest: _row_by_row(
                context, queries, *rest, own=lambda k: queries[0]
            )
        },
        "here it is the mean": {"the mean": partial(_row_by_row, read=lambda x: x.mean(0))},
        "here it is the last": {"the last": partial(_row_by_row, read=lambda x: x[-1])},
        "here it gets the first alone": {"one query": partial(_row_by_row, ask=1)},
        "in their order": {
            "turned": lambda context, *rest: tuple(x.flip(0) for x in _row_by_row(context, *rest)),
            "the first rows": lambda context, queries, task, *rest: _row_by_row(
                context, queries, task.sort().values, *rest
            ),
        },
        "must have shape": {
            "all rows": lambda context, queries, task, decoder, heads: tuple(
                head(decoder(own.expand(len(context), -1, -1), context)[:, 0]) for own, head in zip(queries, heads)
            ),
            "all queries": lambda context, queries, task, decoder, heads: tuple(
                head(decoder(own.expand(int((task == k).sum()), -1, -1), context[task == k]))
                for k, (own, head) in enumerate(zip(queries, heads))
            ),
        },
        "Where no row asks task 1": {
            "such a task is left out": lambda context, queries, task, decoder, heads: tuple(
                part for part in _row_by_row(context, queries, task, decoder, heads) if len(part)
            )
        },
        "none comes to queries[0]": {"queries are constants": deaf(_row_by_row, 1)},
    },
}
