"""An experiment of this exercise: what happens, and why. The cell in the notebook is where it is made."""

import torch

from mmlearn.exercises import expect_observed, experiment
from mmlearn.objectives import ipot


def share(beta: float) -> float:
    """The mass that goes where the cost is 0, after ten steps."""
    cost, real = 1 - torch.eye(6)[None], torch.ones(1, 6, dtype=torch.bool)
    return float((ipot(cost, real, real, beta, 10) * (cost == 0)).sum())


@experiment("higher", "lower", "the same")
def check_a_warmer_plan(observed: list[float]) -> str:
    """Each step multiplies by exp(-C/β): after s steps it is exp(-sC/β), so that a large β needs so many more steps."""
    expect_observed(observed, [share(5.0)], [share(0.5)])
    return "lower"
