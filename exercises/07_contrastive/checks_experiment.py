"""An experiment of this exercise: what happens, and why. The cell in the notebook is where it is made."""

import torch
import torch.nn.functional as F

from mmlearn.exercises import expect_observed, experiment


def guess(logit_scale: float) -> float:
    """The loss of 64 random pairs."""
    draw = torch.Generator().manual_seed(7)
    image, text = (F.normalize(torch.randn(64, 32, generator=draw), dim=-1) for _ in range(2))
    return float(F.cross_entropy(logit_scale * image @ text.T, torch.arange(64)))


@experiment("rise", "fall", "stay")
def check_a_sharper_guess(observed: list[float]) -> str:
    """A sure guess that is wrong costs far more than ln b, which is why CLIP learns its scale from a low start."""
    expect_observed(observed, [guess(100)], [guess(1)])
    return "rise"
