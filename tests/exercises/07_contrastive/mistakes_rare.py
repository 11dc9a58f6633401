"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

import torch
import torch.nn.functional as F

from mmlearn.objectives.contrastive import ranking_hinge


def _hinge(
    image, text, margin=0.2, hardest=False, positives=None, *, own=None, hide=None, turn=True, unit=False, cut=None
):
    if unit:
        image, text = F.normalize(image, dim=1), F.normalize(text, dim=1)
    s = image @ text.T
    same = torch.eye(len(s)).bool()
    fits = same if positives is None else positives | same
    right = s.diagonal()[:, None]
    by_image, by_text = margin + s - right, margin + s.T - right
    both = []
    for cost, fit in ((by_image, fits), (by_text, fits.T if turn else fits)):
        cost = cost.clamp(min=0, max=cut).masked_fill(fit, 0)
        both.append(cost.amax(1) if hardest else cost.sum(1))
    return (both[0] + both[1]).mean()


def _hidden_scores(image, text, margin=0.2, hardest=False, positives=None):
    """What fits gets a similarity of 0."""
    s = image @ text.T
    fits = torch.eye(len(s)).bool() | (False if positives is None else positives)
    right, both = s.diagonal()[:, None], []
    for scores, fit in ((s, fits), (s.T, fits.T)):
        cost = (margin + scores.masked_fill(fit, -1) - right).clamp(min=0)
        both.append(cost.amax(1) if hardest else cost.sum(1))
    return (both[0] + both[1]).mean()


def _off_diagonal(image, text, margin=0.2, hardest=False, positives=None):
    s = image @ text.T
    b = len(s)
    fits = torch.eye(b).bool() | (False if positives is None else positives)
    costs = [
        (margin + one - s.diagonal()[:, None]).clamp(min=0).masked_fill(fit, 0)
        for one, fit in ((s, fits), (s.T, fits.T))
    ]
    costs = [one[~torch.eye(b).bool()].view(b, b - 1) for one in costs]
    return sum(one.amax(1) if hardest else one.sum(1) for one in costs).mean()


RARE = {
    "ranking_hinge": {
        "With positives: A text that fits must not count as a rival": {
            "positives not turned": lambda *given, **named: _hinge(*given, **named, turn=False),
            "costs of at most 2": lambda *given, **named: _hinge(*given, **named, cut=2.0),
            "-1 where it fits": _hidden_scores,
            "the diagonal alone": lambda image, text, margin=0.2, hardest=False, positives=None: ranking_hinge(
                image, text, margin, hardest, None if positives is None else positives & positives.T
            ),
        },
        "must be right as well as its value; that of image_embedding is not": {
            "unit length": lambda *given, **named: _hinge(*given, **named, unit=True)
        },
        "with IndexError: amax():": {"b - 1 rivals": _off_diagonal},
    }
}
