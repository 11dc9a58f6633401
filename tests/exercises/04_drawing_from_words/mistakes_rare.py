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


def _sorted(caption_id):
    """The next row of a batch whose captions stand in order."""
    b = len(caption_id)
    rows, differs = other_captions(caption_id)
    change = (caption_id != caption_id.roll(-1)).any()
    return rows, differs | (change & ~differs)


def _few(caption_id, most=4):
    b = len(caption_id)
    rows = (torch.arange(b)[:, None] + torch.arange(min(b, most))) % b
    differs = caption_id[rows] != caption_id[:, None]
    return rows.gather(1, differs.int().argmax(1, keepdim=True))[:, 0], differs.any(1)


RARE = {
    "interpolate_texts": {
        "?": {
            "no default": lambda text, other, beta: beta * text + (1 - beta) * other,
            "another default": lambda text, other, beta=0.25: beta * text + (1 - beta) * other,
            "1 by default": lambda text, other, beta=1.0: beta * text + (1 - beta) * other,
        },
    },
    "other_captions": {
        "?": {
            "marked": _marked,
            "squeezed": _others,
            "three steps": _few,
        },
    },
}
