"""A law is found again from its own numbers, and its best size is the best of many tried."""

import math
from dataclasses import replace

import pytest
import torch
from testing_tools import refused, seeded

from mmlearn.evaluation import ScalingLaw, fit_scaling_law

LAW = ScalingLaw(floor=1.7, of_parameters=400.0, of_samples=410.0, alpha=0.35, beta=0.28)  # about Chinchilla's
SMALL = ScalingLaw(floor=0.5, of_parameters=30.0, of_samples=9.0, alpha=0.6, beta=0.2)
SIZES, BUDGETS = (1e4, 5e4, 3e5), (1e11, 1e12, 1e13)


def trainings(law, sizes=SIZES, budgets=BUDGETS):
    pairs = [(n, c / (6 * n)) for n in sizes for c in budgets]
    return [n for n, _ in pairs], [d for _, d in pairs], [law.loss(n, d) for n, d in pairs]


def test_a_loss_by_hand():
    assert ScalingLaw(1.0, 8.0, 27.0, 1.0, 0.5).loss(4.0, 9.0) == pytest.approx(1 + 2 + 9)


@pytest.mark.parametrize("law", [LAW, SMALL, ScalingLaw(2.0, 1e4, 2e3, 1.2, 0.7)])
def test_a_law_is_found_again(law):
    found = fit_scaling_law(*trainings(law))
    assert (found.alpha, found.beta) == (pytest.approx(law.alpha, abs=1e-6), pytest.approx(law.beta, abs=1e-6))
    assert found.floor == pytest.approx(law.floor, rel=1e-4)
    assert found.loss(1e6, 1e9) == pytest.approx(law.loss(1e6, 1e9), rel=1e-4)  # beyond all trainings


def test_no_other_law_has_smaller_squared_errors_on_noisy_losses():
    n, d, loss = trainings(LAW)
    noise = 0.02 * torch.randn(len(loss), generator=seeded())
    loss = [value * (1 + part) for value, part in zip(loss, noise.tolist())]
    found = fit_scaling_law(n, d, loss)
    sizes, samples, wanted = (torch.tensor(x, dtype=torch.float64) for x in (n, d, loss))

    def least(alpha, beta):
        """The squared errors of the best law with these exponents."""
        matrix = torch.stack([torch.ones(9), (sizes / 1e5) ** -alpha, (samples / 1e7) ** -beta], 1)
        numbers = torch.linalg.lstsq(matrix, wanted[:, None]).solution
        return (matrix @ numbers - wanted[:, None]).square().sum().item() if (numbers > 0).all() else math.inf

    own = sum((found.loss(*pair) - value) ** 2 for *pair, value in zip(n, d, loss))
    assert own == pytest.approx(least(found.alpha, found.beta), rel=1e-6)
    everywhere = [torch.arange(0.05, 1.5, 0.05).tolist()] * 2
    near = [[max(0.05, middle + 0.01 * k) for k in range(-20, 21)] for middle in (found.alpha, found.beta)]
    for some, others in (everywhere, near):
        assert own <= min(least(alpha, beta) for alpha in some for beta in others) * (1 + 1e-6)


def test_what_cannot_be_fitted():
    n, d, loss = trainings(LAW)
    refused("five trainings or more, got 4, 4, 4", fit_scaling_law, n[:4], d[:4], loss[:4])
    refused("got 9, 9, 8", fit_scaling_law, n, d, loss[:8])
    negative = [dict(floor=-0.5), dict(of_parameters=-30.0), dict(of_samples=-9.0)]
    for losses in ([-x for x in loss], *(trainings(replace(SMALL, **one))[2] for one in negative)):
        refused("No law with positive numbers", fit_scaling_law, n, d, losses)
