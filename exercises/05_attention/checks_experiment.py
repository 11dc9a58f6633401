"""An experiment of this exercise: what happens, and why. The cell in the notebook is where it is made."""

import math

import torch

from mmlearn.exercises import expect_observed, experiment


def spread(root: float) -> list[float]:
    """How spread the weights are at three widths, scores divided by the width to this power."""
    found = []
    for width in (4, 64, 1024):
        draw = torch.Generator().manual_seed(width)
        query, key = torch.randn(200, width, generator=draw), torch.randn(50, width, generator=draw)
        weights = (query @ key.T / width**root).softmax(-1)
        found.append(float(torch.special.entr(weights).sum(-1).mean()) / math.log(50))
    return found


@experiment("rise", "fall", "stay")
def check_without_the_root(observed: list[float]) -> str:
    """A product over k numbers has size √k, so that in a wide head one key soon has all the weight and none learns."""
    expect_observed(observed, spread(0.0), spread(0.5))
    return "fall"
