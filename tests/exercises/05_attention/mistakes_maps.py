"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import then
from einops import reduce


def _argmax(maps, regions, covered=0.1):
    return (regions.gather(-1, maps.argmax(-1, keepdim=True)) >= covered).float().mean()


def _share_of_the_highest(maps, regions):
    highest = (maps == maps.amax(-1, keepdim=True)).float()
    return ((highest * (regions >= 0.1)).sum(-1) / highest.sum(-1)).mean()


def _any_of_the_highest(maps, regions):
    return ((maps == maps.amax(-1, keepdim=True)) & (regions >= 0.1)).any(-1).float().mean()


def _all_of_the_highest(maps, regions):
    return ((maps < maps.amax(-1, keepdim=True)) | (regions >= 0.1)).all(-1).float().mean()


def _entropy(maps, normalise=True, log=torch.log, small=1e-30):
    weights = maps / maps.sum(-1, keepdim=True) if normalise else maps
    return -(weights * log(weights + small)).sum(-1)


def _ln(maps):
    return torch.tensor(maps.shape[-1]).log()


def _inside(maps, regions, covered=0.1):
    """The weight inside, and the share of patches inside."""
    inside = (regions >= covered).float()
    return (maps / maps.sum(-1, keepdim=True) * inside).sum(-1), inside.mean(-1)


def _ratio_to_outside(maps, regions):
    inside = regions >= 0.1
    return ((maps * inside).sum(-1) / inside.sum(-1) / ((maps * ~inside).sum(-1) / (~inside).sum(-1))).mean()


RIGHT = {  # right answers that are written in another way than the library's
    "on_grid": lambda masks, grid: F.adaptive_avg_pool2d(masks.float(), grid).flatten(1),
    "pointing_accuracy": _share_of_the_highest,
    "entropy": lambda maps: (_entropy(maps) / _ln(maps)).mean(),
    "mass_ratio": lambda maps, regions: torch.div(*_inside(maps, regions)).mean(),
}

MISTAKES = {
    "on_grid": {
        "A share is at most 1": {
            "sum of pixels": lambda masks, grid: (
                F.adaptive_avg_pool2d(masks.float(), grid).flatten(1) * masks[0].numel()
            )
        },
        "of which half is covered must have share 0.5": {
            "touched or not": lambda masks, grid: F.adaptive_max_pool2d(masks.float(), grid).flatten(1),
            "nearest pixel": lambda masks, grid: F.interpolate(masks[:, None].float(), grid).flatten(1),
        },
        "Every pixel of a patch must count alike": {
            "bilinear": lambda masks, grid: F.interpolate(masks[:, None].float(), grid, mode="bilinear").flatten(1)
        },
        "Patches must come in reading order": {
            "column by column": lambda masks, grid: F.adaptive_avg_pool2d(masks.float(), grid).mT.flatten(1),
            "columns × rows": lambda masks, grid: F.adaptive_avg_pool2d(masks.float(), grid[::-1]).flatten(1),
        },
        "must have shape (1, 6); this one has (1, 2, 3)": {
            "a grid, not a row of patches": lambda masks, grid: F.adaptive_avg_pool2d(masks.float(), grid)
        },
        "A grid of (4, 2): Its result must have shape": {
            "square patches only": lambda masks, grid: reduce(
                masks.float(), "n (r y) (c x) -> n (r c)", "mean", y=4, x=4
            )
        },
    },
    "pointing_accuracy": {
        "A flat map knows nothing": {
            "argmax takes the first of a tie": _argmax,
            "any of a tie": _any_of_the_highest,
            "all of a tie": _all_of_the_highest,
        },
        "only 0.05 is covered must not count": {"touched is enough": partial(_argmax, covered=1e-9)},
        "lies on any patch of the region must count 1": {
            "mostly covered": partial(_argmax, covered=0.5),
            "the best covered patch only": lambda maps, regions: (maps.argmax(-1) == regions.argmax(-1)).float().mean(),
            "a count": lambda maps, regions: _argmax(maps, regions) * len(maps),
        },
        "lies beside the region must count 0": {"the weight on the region": then(_inside, lambda y: y[0].mean())},
        "must return one number, not a Tensor of shape (40,)": {
            "one answer a map": lambda maps, regions: regions.gather(-1, maps.argmax(-1, keepdim=True))[:, 0] >= 0.1
        },
    },
    "entropy": {
        "whatever their number. Expected 1": {
            "not over ln p": then(_entropy, lambda y: y.mean()),
            "sign": lambda maps: -(_entropy(maps) / _ln(maps)).mean(),
            "two bases": lambda maps: (_entropy(maps, log=torch.log2) / _ln(maps)).mean(),
            "sum over maps": lambda maps: (_entropy(maps) / _ln(maps)).sum(),
            "a large epsilon": lambda maps: (_entropy(maps, small=1e-3) / _ln(maps)).mean(),
        },
        "zeros elsewhere: Its result must be finite": {
            "0 ln 0": lambda maps: (_entropy(maps, small=0) / _ln(maps)).mean()
        },
        "Its entropy must be 0": {
            "softmax of weights": lambda maps: (_entropy(maps.softmax(-1)) / _ln(maps)).mean(),
            "of the mean map": lambda maps: _entropy(maps.mean(0)) / _ln(maps),
        },
        "Five times a map must have the same entropy": {
            "not normalised": lambda maps: (_entropy(maps, normalise=False) / _ln(maps)).mean()
        },
        "must return one number, not a Tensor of shape (6,)": {"one a map": lambda maps: _entropy(maps) / _ln(maps)},
    },
    "mass_ratio": {
        "A flat map must have ratio 1": {
            "not over the area": then(_inside, lambda y: y[0].mean()),
            "over the number of patches": lambda maps, regions: (
                _inside(maps, regions)[0] / (regions >= 0.1).sum(-1)
            ).mean(),
        },
        "Seven times a map must have the same ratio": {
            "not normalised": lambda maps, regions: (
                (maps * (regions >= 0.1)).sum(-1) / (regions >= 0.1).float().mean(-1)
            ).mean()
        },
        "with all its weight on the region": {
            "shares in place of in or out": lambda maps, regions: (
                (maps / maps.sum(-1, keepdim=True) * regions).sum(-1) / regions.mean(-1)
            ).mean(),
            "touched is enough": lambda maps, regions: torch.div(*_inside(maps, regions, 1e-9)).mean(),
            "ratio of the means": then(_inside, lambda y: torch.div(*(x.mean() for x in y))),
            "softmax of weights": lambda maps, regions: torch.div(*_inside(maps.softmax(-1), regions)).mean(),
        },
        "Its result must be finite; this one is inf": {"inside over outside": _ratio_to_outside},
        "must return one number": {"one a map": then(_inside, lambda y: torch.div(*y))},
    },
}
