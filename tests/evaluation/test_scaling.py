"""A law is found again from its own numbers, and its best size is the best of many tried."""

import pytest
from testing_tools import refused

from mmlearn.evaluation import ScalingLaw, fit_scaling_law

LAW = ScalingLaw(floor=1.7, of_parameters=400.0, of_samples=410.0, alpha=0.35, beta=0.28)  # about Chinchilla's
SIZES, BUDGETS = (1e4, 5e4, 3e5), (1e11, 1e12, 1e13)


def trainings(law, sizes=SIZES, budgets=BUDGETS):
    pairs = [(n, c / (6 * n)) for n in sizes for c in budgets]
    return [n for n, _ in pairs], [d for _, d in pairs], [law.loss(n, d) for n, d in pairs]


def test_a_loss_by_hand():
    assert ScalingLaw(1.0, 8.0, 27.0, 1.0, 0.5).loss(4.0, 9.0) == pytest.approx(1 + 2 + 9)


@pytest.mark.parametrize("law", [LAW, ScalingLaw(0.5, 30.0, 9.0, 0.6, 0.2), ScalingLaw(2.0, 1e4, 2e3, 1.2, 0.7)])
def test_a_law_is_found_again(law):
    found = fit_scaling_law(*trainings(law))
    assert (found.alpha, found.beta) == (pytest.approx(law.alpha, abs=1e-6), pytest.approx(law.beta, abs=1e-6))
    assert found.floor == pytest.approx(law.floor, rel=1e-4)
    assert found.loss(1e6, 1e9) == pytest.approx(law.loss(1e6, 1e9), rel=1e-4)  # beyond all trainings


def test_what_cannot_be_fitted():
    n, d, loss = trainings(LAW)
    refused("five trainings or more, got 4, 4, 4", fit_scaling_law, n[:4], d[:4], loss[:4])
    refused("got 9, 9, 8", fit_scaling_law, n, d, loss[:8])
    refused("No law with positive numbers", fit_scaling_law, n, d, [-x for x in loss])
