"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import detached

from mmlearn.objectives import central_moment_discrepancy, difference_loss


def _cmd(
    x,
    y,
    moments=5,
    low=0.0,
    high=1.0,
    *,
    moment=lambda x, k: (x - x.mean(0)).pow(k).mean(0),
    norm=torch.linalg.vector_norm,
    width=lambda low, high, k: (high - low) ** k,
    last=1,
):
    """CMD, or what differs in a single position."""
    total = norm(x.mean(0) - y.mean(0)) / width(low, high, 1)
    for k in range(2, moments + last):
        total = total + norm(moment(x, k) - moment(y, k)) / width(low, high, k)
    return total


def _pooled(x, y, moments=5, low=0.0, high=1.0):
    return central_moment_discrepancy(x.flatten()[:, None], y.flatten()[:, None], moments, low, high)


def _row_by_row(x, y, moments=5, low=0.0, high=1.0):
    return (x - y).norm(dim=1).mean() / (high - low)


def _written_out(difference):
    return difference.square().sum().sqrt()


def _difference(
    x,
    y,
    *,
    centre=lambda x: x - x.mean(0),
    unit=lambda x: F.normalize(x, dim=-1, eps=1e-6),
    loss=lambda product: product.square().mean(),
):
    """The difference loss, or what differs in a single position."""
    x, y = (unit(centre(view)) for view in (x, y))
    return loss(x.T @ y)


def _unit_first(x, y):
    x, y = (F.normalize(view, dim=-1) for view in (x, y))
    x, y = (view - view.mean(0) for view in (x, y))
    return (x.T @ y).square().mean()


RIGHT = {  # right answers that are written in another way than the library's
    "central_moment_discrepancy": _cmd,
    "difference_loss": _difference,
}

MISTAKES = {
    "central_moment_discrepancy": {
        "It stops in line": {"row by row": _row_by_row},
        "A sample that is only moved must differ": {
            "squared": partial(_cmd, norm=lambda x: x.square().sum()),
            "the mean over features": partial(_cmd, norm=lambda x: x.abs().mean()),
            "all features as one": _pooled,
            "moments about 0": partial(_cmd, moment=lambda x, k: x.pow(k).mean(0)),
            "no width": partial(_cmd, width=lambda low, high, k: 1),
        },
        "It must be the same as for features from 0 to 1": {
            "the width, not its power": partial(_cmd, width=lambda low, high, k: high - low)
        },
        "or all of them twice, must give 0": {
            "divided by n - 1": partial(_cmd, moment=lambda x, k: (x - x.mean(0)).pow(k).sum(0) / (len(x) - 1))
        },
        "With 2 moments it must sum": {"a moment too few": partial(_cmd, last=0)},
        "With one moment it must be the distance of the means": {"a moment too many": partial(_cmd, last=2)},
        "With 3 moments it must sum": {
            "without the sign": partial(_cmd, moment=lambda x, k: (x - x.mean(0)).abs().pow(k).mean(0))
        },
        "Its gradient must be finite": {"a root written out": partial(_cmd, norm=_written_out)},
        "A gradient must flow": {"no graph": detached(central_moment_discrepancy)},
    },
    "difference_loss": {
        "It stops in line": {"rows with rows": lambda x, y: (x @ y.T).square().mean()},
        "A constant that is added to a feature": {
            "centred over features": partial(_difference, centre=lambda x: x - x.mean(1, keepdim=True)),
            "not centred": partial(_difference, centre=lambda x: x),
            "unit length first": _unit_first,
        },
        "A view and its opposite do vary together": {
            "features of unit length": partial(_difference, unit=partial(F.normalize, dim=0)),
            "not squared": partial(_difference, loss=torch.mean),
            "summed": partial(_difference, loss=lambda product: product.square().sum()),
            "the norm": partial(_difference, loss=torch.linalg.matrix_norm),
            "the diagonal": partial(_difference, loss=lambda product: product.diagonal().square().mean()),
        },
        "A view that is some times larger must give the same": {"any length": partial(_difference, unit=lambda x: x)},
        "the mean of the squares of all d · e entries": {
            "divided by n": lambda x, y: difference_loss(x, y) * (4 / len(x)) ** 2
        },
        "One row": {"a division by 0": partial(_difference, unit=lambda x: x / x.norm(dim=1, keepdim=True))},
        "A gradient must flow to every input": {"no graph": lambda x, y: difference_loss(x, y.detach())},
    },
}
