"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

import torch

from mmlearn.objectives.drawing import other_captions


def _marked(caption_id):
    """0 marks a row that is the same."""
    b = len(caption_id)
    rows = (torch.arange(b)[:, None] + torch.arange(b)) % b
    marked = torch.where(caption_id[rows] == caption_id[:, None], -1, caption_id[rows])
    return rows.gather(1, (marked >= 0).int().argmax(1, keepdim=True))[:, 0], (marked >= 0).any(1)


def _others(caption_id):
    rows, differs = other_captions(caption_id)
    return rows.squeeze(), differs.squeeze()


def _few(caption_id, most=5):
    b = len(caption_id)
    rows = (torch.arange(b)[:, None] + torch.arange(min(b, most))) % b
    differs = caption_id[rows] != caption_id[:, None]
    return rows.gather(1, differs.int().argmax(1, keepdim=True))[:, 0], differs.any(1)


RARE = {
    "interpolate_texts": {
        "Called without beta: It stops with TypeError: <lambda>() missing": {
            "no default": lambda text, other, beta: beta * text + (1 - beta) * other
        },
        "Called without beta: It must be what the statement says": {
            "another default": lambda text, other, beta=0.25: beta * text + (1 - beta) * other,
            "1 by default": lambda text, other, beta=1.0: beta * text + (1 - beta) * other,
        },
    },
    "other_captions": {
        "It must be the next row whose caption is another": {"marked": _marked},
        "For a batch of one: Its result must have shape": {"squeezed": _others},
        "Where many rows in turn have one caption": {"five rows on": _few},
    },
}
