"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial
from itertools import groupby

import torch
import torch.nn.functional as F
from common_mistakes import detached, then

from mmlearn.evaluation import best_region, iou, nlvr_accuracy, soft_scores
from mmlearn.models.fusion.regions import box_sizes
from mmlearn.models.fusion.streams import co_attention
from mmlearn.objectives.masked import smooth_region_regression

# Two streams.


def _sizes(boxes, width=lambda x, y, r, b: r - x, height=lambda x, y, r, b: b - y, area=torch.mul):
    corners = boxes.unbind(-1)
    w, h = width(*corners), height(*corners)
    return torch.stack([w, h, area(w, h)], -1)


def _up_to_the_corner(boxes):
    return torch.cat([box_sizes(boxes)[..., :2], (boxes[..., 2] * boxes[..., 3])[..., None]], -1)


def _text_first(text, visual, mask, visual_mask, text_attends, visual_attends):
    text = text_attends(text, visual, visual_mask)
    return text, visual_attends(visual, text, mask)


def _visual_first(text, visual, mask, visual_mask, text_attends, visual_attends):
    visual = visual_attends(visual, text, mask)
    return text_attends(text, visual, visual_mask), visual


def _joined(text, visual, mask, visual_mask, text_attends, visual_attends):
    """Both streams in one, as a single-stream model has it."""
    if text.shape[-1] != visual.shape[-1]:
        return co_attention(text, visual, mask, visual_mask, text_attends, visual_attends)
    both, real = torch.cat([text, visual], 1), torch.cat([mask, visual_mask], 1)
    return text_attends(text, both, real), visual_attends(visual, both, real)


def _masks_inverted(text, visual, mask, visual_mask, text_attends, visual_attends):
    return text_attends(text, visual, ~visual_mask), visual_attends(visual, text, ~mask)


def _needs_masks(text, visual, mask, visual_mask, text_attends, visual_attends):
    return text_attends(text, visual, visual_mask & True), visual_attends(visual, text, mask & True)


def _residual_twice(text, visual, *rest):
    looked = co_attention(text, visual, *rest)
    return text + looked[0], visual + looked[1]


def _smooth(prediction, target, masked, *, distance=F.smooth_l1_loss, count=lambda masked, f: masked.sum() * f):
    total = distance(prediction[masked], target[masked], reduction="sum")
    return total / count(masked, prediction.shape[-1]).clamp(min=1)


def _rows_first(prediction, target, masked):
    distance = F.smooth_l1_loss(prediction, target, reduction="none").mean(-1) * masked
    return (distance.sum(1) / masked.sum(1).clamp(min=1)).mean()


def _by_length(prediction, target, masked):
    """The smooth distance of each region's root mean square, not of each feature."""
    length = (prediction - target)[masked].square().mean(-1).sqrt()
    return (
        F.smooth_l1_loss(length, torch.zeros_like(length), reduction="sum") / len(length)
        if len(length)
        else length.sum()
    )


def _no_minus_a_half(x, y, reduction):
    off = (x - y).abs()
    return torch.where(off < 1, off.square() / 2, off).sum()


# Where is it?


def _iou(box, other, *, least=0.0, side=0.0, join=lambda a, b, shared: a + b - shared, small=1e-12):
    """IoU, or one that differs in a single position."""
    area = lambda x: (x[:, 2:] - x[:, :2] + side).prod(-1)  # noqa: E731
    shared = torch.minimum(box[:, 2:], other[:, 2:]) - torch.maximum(box[:, :2], other[:, :2]) + side
    shared = shared.clamp(min=least).prod(-1)
    return shared / join(area(box), area(other), shared).clamp(min=small)


def _corner_and_size(box, other):
    return iou(*(torch.cat([x[:, :2], x[:, :2] + x[:, 2:]], -1) for x in (box, other)))


def _all_pairs(box, other):
    return torch.stack([iou(box, one.expand_as(box)) for one in other], -1)


def _generalised(box, other):
    hull = (torch.maximum(box[:, 2:], other[:, 2:]) - torch.minimum(box[:, :2], other[:, :2])).prod(-1)
    shared = (torch.minimum(box[:, 2:], other[:, 2:]) - torch.maximum(box[:, :2], other[:, :2])).clamp(min=0).prod(-1)
    union = sum((x[:, 2:] - x[:, :2]).prod(-1) for x in (box, other)) - shared
    return iou(box, other) - (hull - union) / hull.clamp(min=1e-12)


def _best(weights, boxes, mask=None, *, hide=lambda w, m: w.masked_fill(~m, -torch.inf), pick=lambda w: w.argmax(1)):
    weights = weights if mask is None else hide(weights, mask)
    return boxes[torch.arange(len(boxes)), pick(weights)]


def _in_position(weights, boxes, mask=None):
    if mask is not None:
        weights[~mask] = -torch.inf
    return best_region(weights, boxes)


def _real_ones_only(weights, boxes, mask=None):
    """The position among the real regions, looked up among all."""
    if mask is None:
        return best_region(weights, boxes)
    positions = [row[real].argmax() for row, real in zip(weights, mask)]
    return boxes[torch.arange(len(boxes)), torch.stack(positions)]


# Is it right?


def _judge(guess, label, sentence, *, one=all, share=None, accuracy=None):
    """Accuracy and consistency, or what differs in a single position."""
    right = (guess == label).tolist()
    groups = {name: [r for r, s in zip(right, sentence) if s == name] for name in sentence}
    return {
        "accuracy": accuracy(groups) if accuracy else sum(right) / len(right),
        "consistency": share(groups) if share else sum(one(rights) for rights in groups.values()) / len(groups),
    }


def _mean(rights):
    return sum(rights) / len(rights)


def _mean_of_sentences(groups):
    return _mean([_mean(rights) for rights in groups.values()])


def _neighbours_only(guess, label, sentence):
    right = (guess == label).tolist()
    groups = [all(right[i] for i in run) for _, run in groupby(range(len(right)), key=lambda i: sentence[i])]
    return nlvr_accuracy(guess, label, sentence) | {"consistency": _mean(groups)}


def _agree_with_each_other(guess, label, sentence):
    groups = [{g for g, s in zip(guess.tolist(), sentence) if s == name} for name in dict.fromkeys(sentence)]
    return nlvr_accuracy(guess, label, sentence) | {"consistency": _mean([len(group) == 1 for group in groups])}


def _share_of_pairs(groups):
    return sum(len(rights) for rights in groups.values() if all(rights)) / sum(map(len, groups.values()))


RIGHT = {  # right answers that are written in another way than the library's
    "box_sizes": _sizes,
    "co_attention": lambda t, v, m, n, look, other: (look(t, v, n), other(v, t, m)),
    "smooth_region_regression": _smooth,
    "iou": _iou,
    "best_region": _best,
    "soft_scores": lambda n: (n / 3).clamp(max=1),
    "nlvr_accuracy": _judge,
}

MISTAKES = {
    "box_sizes": {
        "Width must come first; here height does": {"height first": then(box_sizes, lambda y: y[..., [1, 0, 2]])},
        "Width must be right minus left": {
            "a corner and a size": lambda boxes: _sizes(boxes, lambda x, y, r, b: r, lambda x, y, r, b: b)
        },
        "A box around the whole picture": {
            "left minus right": lambda boxes: _sizes(boxes, lambda x, y, r, b: x - r, lambda x, y, r, b: y - b),
            "left, right, top, bottom": lambda boxes: _sizes(boxes, lambda x, y, r, b: y - x, lambda x, y, r, b: b - r),
            "a sum for the area": lambda boxes: _sizes(boxes, area=torch.add),
        },
        "Height must be bottom minus top": {
            "height from the left": lambda boxes: _sizes(boxes, height=lambda x, y, r, b: b - x)
        },
        "The area must be width times height": {
            "area from the picture's corner": _up_to_the_corner,
            "root of the area": lambda boxes: _sizes(boxes, area=lambda w, h: (w * h).sqrt()),
        },
        "must have shape (2, ": {"stacked first": then(box_sizes, lambda y: y.movedim(-1, 0))},
    },
    "co_attention": {
        "here it is the looking one's own": {"own mask": lambda t, v, m, n, *looks: co_attention(t, v, n, m, *looks)},
        "here a mask is missing": {
            "no masks": lambda t, v, m, n, *looks: co_attention(t, v, None, None, *looks),
            "no mask of the words": lambda t, v, m, n, *looks: co_attention(t, v, None, n, *looks),
        },
        "here one looks at itself": {
            "keys of its own": lambda t, v, m, n, look, other: (look(t, t, m), other(v, v, n)),
            "keys of its own, the other's mask": lambda t, v, m, n, look, other: (look(t, t, n), other(v, v, m)),
        },
        "as it was before": {"text first": _text_first, "visual first": _visual_first},
        "with its own weights: text_attends is for the text": {
            "looks exchanged": lambda t, v, m, n, look, other: co_attention(t, v, m, n, other, look)
        },
        "The text stream must come back first": {"streams exchanged": then(co_attention, lambda y: y[::-1])},
        "Both must look; here one stays as it is": {"words only": lambda t, v, m, n, look, other: (look(t, v, n), v)},
        "It must return text and visual": {"one stream": then(co_attention, lambda y: y[0])},
        "what its look at the other stream gives": {"one sequence of both": _joined, "added twice": _residual_twice},
        "here a mask is inverted": {"masks inverted": _masks_inverted},
        "without masks: It stops in line": {"masks required": _needs_masks},
    },
    "smooth_region_regression": {
        "Where every masked region is guessed exactly, the loss must be 0": {
            "all regions": lambda x, y, m: F.smooth_l1_loss(x, y),
            "the visible ones": lambda x, y, m: smooth_region_regression(x, y, ~m),
        },
        "off by ½, the loss must be (½)²/2 = ⅛": {
            "squared": lambda x, y, m: _smooth(x, y, m, distance=F.mse_loss),
            "absolute": lambda x, y, m: _smooth(x, y, m, distance=F.l1_loss),
            "sum over features": partial(_smooth, count=lambda m, f: m.sum()),
            "mean over all regions": partial(_smooth, count=lambda m, f: torch.tensor(m.numel() * f)),
            "a sum": partial(_smooth, count=lambda m, f: torch.tensor(1)),
        },
        "off by 3, the loss must be 3 - ½": {
            "half of the square": lambda x, y, m: _smooth(x, y, m, distance=F.mse_loss) / 2,
            "no minus a half": partial(_smooth, distance=_no_minus_a_half),
        },
        "Every masked region must count alike": {"rows first": _rows_first},
        "mean over masked regions and features of the smooth distance": {"length of a region": _by_length},
        "With nothing masked: Its result must be finite": {
            "mean of nothing": lambda x, y, m: F.smooth_l1_loss(x[m], y[m])
        },
        "must have shape (); this one has (4, 6)": {
            "one loss a row": lambda x, y, m: F.smooth_l1_loss(x, y, reduction="none").mean(-1) * m
        },
        "A gradient must flow from the result": {"no gradient": detached(smooth_region_regression)},
    },
    "iou": {
        "that are the same must have IoU 1": {
            "shared counts twice": partial(_iou, join=lambda a, b, s: a + b),
            "shared area alone": partial(_iou, join=lambda a, b, s: torch.ones(())),
            "a distance": then(iou, lambda y: 1 - y),
        },
        "to the right and below of it: Boxes that do not touch": {
            "two negatives": partial(_iou, least=-9.0),
            "clamped at the end": lambda box, other: _iou(box, other, least=-9.0).clamp(0, 1),
            "generalised": _generalised,
        },
        "must have IoU ¼": {
            "over the smaller": partial(_iou, join=lambda a, b, s: torch.minimum(a, b)),
            "Dice": partial(_iou, join=lambda a, b, s: (a + b) / 2),
            "a corner and a size": _corner_and_size,
        },
        "Boxes in pixels instead of shares: IoU must be what it is": {"a pixel more": partial(_iou, side=1.0)},
        "Two boxes without area: Its result must be finite": {"0 by 0": partial(_iou, small=0.0)},
        "Box i must meet box i only": {"all pairs": _all_pairs},
    },
    "best_region": {
        "It must be the box with the highest weight": {
            "the lowest": partial(_best, pick=lambda w: w.argmin(1)),
            "the best of all rows": lambda w, boxes, m=None: boxes[:, w.mean(0).argmax()],
        },
        "one of the boxes as it is": {
            "a mean of boxes": lambda w, boxes, m=None: (w.softmax(1)[..., None] * boxes).sum(1)
        },
        "not the boxes at all n positions": {"boxes of all rows": lambda w, boxes, m=None: boxes[:, w.argmax(1)]},
        "must have shape (": {"its number": lambda w, boxes, m=None: w.argmax(1)},
        "equally the highest: The first of them": {
            "the last of several": partial(_best, pick=lambda w: w.shape[1] - 1 - w.flip(1).argmax(1))
        },
        "that has the highest weight: Padding must": {
            "ignores the mask": lambda w, boxes, m=None: best_region(w, boxes),
            "mask inverted": lambda w, boxes, m=None: best_region(w, boxes, m if m is None else ~m),
            "position among the real ones": _real_ones_only,
        },
        "weights that are all negative: Padding must not win": {
            "times the mask": partial(_best, hide=torch.mul),
            "filled with 0": partial(_best, hide=lambda w, m: w.masked_fill(~m, 0)),
        },
        "must leave its arguments as they are": {"in place": _in_position},
    },
    "soft_scores": {
        "worth at most 1": {"no limit": lambda n: n / 3},
        "What three people said, or more, must be worth 1": {
            "share of ten people": lambda n: n / 10,
            "the official mean": lambda n: n / 10 * soft_scores((n - 1).clamp(min=0)) + (1 - n / 10) * soft_scores(n),
            "share of the row": lambda n: n / n.sum(-1, keepdim=True).clamp(min=1),
            "share of the most common": lambda n: n / n.max(),
        },
        "What nobody said must be worth 0": {"a softmax": lambda n: n.float().softmax(-1)},
        "One person must make ⅓, and two ⅔": {
            "three or nothing": lambda n: (n >= 3).float(),
            "whole numbers": lambda n: (n // 3).clamp(max=1),
            "any is right": lambda n: (n > 0).float(),
        },
        "must have shape (4, 5)": {"one number": lambda n: soft_scores(n).mean()},
    },
    "nlvr_accuracy": {
        "It must return a dict, not a Tensor": {"one number": lambda g, y, s: (g == y).float().mean()},
        "must hold accuracy and consistency": {"no consistency": lambda g, y, s: {"accuracy": (g == y).float().mean()}},
        "Where all is right, both are 1": {
            "percent": then(nlvr_accuracy, lambda y: {name: 100 * value for name, value in y.items()}),
            "counts": lambda g, y, s: nlvr_accuracy(g, y, s) | {"consistency": len(set(s))},
            "guesses that agree": _agree_with_each_other,
        },
        "accuracy is ¾ and consistency 0": {
            "any pair": partial(_judge, one=any),
            "more than half": partial(_judge, one=lambda rights: _mean(rights) > 0.5),
            "mean of a sentence": partial(_judge, share=_mean_of_sentences),
        },
        "sentences have 1 to 6 pairs: consistency": {"share of pairs": partial(_judge, share=_share_of_pairs)},
        "sentences have 1 to 6 pairs: accuracy is the share of pairs": {
            "accuracy by sentence": partial(_judge, accuracy=_mean_of_sentences)
        },
        "Where pairs of one sentence do not stand together": {"neighbours only": _neighbours_only},
    },
}
