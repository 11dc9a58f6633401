"""CMD is 0 for equal samples, the difference loss 0 for what does not vary together; both against numpy."""

import numpy as np
import pytest
import torch
from scipy import stats
from testing_tools import close, refused

from mmlearn.objectives import central_moment_discrepancy, difference_loss


def by_numpy(x, y, moments, low, high):
    distance = np.linalg.norm(x.mean(0) - y.mean(0)) / (high - low)
    for k in range(2, moments + 1):
        distance += np.linalg.norm(stats.moment(x, k, axis=0) - stats.moment(y, k, axis=0)) / (high - low) ** k
    return distance


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0)])
@pytest.mark.parametrize("moments", [1, 2, 5])
def test_cmd_against_numpy_and_scipy(moments, low, high):
    x, y = (low + (high - low) * torch.rand(n, 6).pow(p) for n, p in ((9, 1), (14, 2)))
    expected = by_numpy(x.double().numpy(), y.double().numpy(), moments, low, high)
    got = central_moment_discrepancy(x, y, moments, low, high).item()
    assert got == pytest.approx(expected, rel=1e-5)
    assert central_moment_discrepancy(y, x, moments, low, high).item() == pytest.approx(got, rel=1e-6)


def test_cmd_of_equal_samples_is_0_in_any_order():
    x = torch.rand(20, 5)
    assert central_moment_discrepancy(x, x).item() == 0
    assert central_moment_discrepancy(x, x.flip(0)).item() < 1e-6
    assert central_moment_discrepancy(x, x.repeat(2, 1)).item() < 1e-6
    same = central_moment_discrepancy(torch.rand(4000, 5), torch.rand(4000, 5)).item()
    assert same < 0.05 < central_moment_discrepancy(torch.rand(4000, 5), torch.rand(4000, 5).pow(1.3)).item()


def test_higher_moments_see_what_lower_ones_do_not():
    """The same mean and variance, but skewed."""
    x = torch.tensor([[0.0], [0.5], [1.0]]).repeat(2, 1)
    skewed = torch.tensor([0.0] * 1 + [0.25] * 2 + [0.5] * 2 + [1.0])[:, None]
    skewed = (skewed - skewed.mean()) / skewed.std() * x.std() + x.mean()
    assert central_moment_discrepancy(x, skewed, 2).item() < 1e-6
    assert central_moment_discrepancy(x, skewed, 3).item() > 1e-3


def test_gradients_are_finite_where_both_are_equal():
    x = torch.rand(4, 3, requires_grad=True)
    (central_moment_discrepancy(x, x.detach().clone()) + difference_loss(x, x * 0)).backward()
    assert x.grad.isfinite().all()


def test_cmd_brings_samples_together():
    x, y = torch.randn(32, 4, requires_grad=True), torch.rand(32, 4)
    optimizer = torch.optim.Adam([x], lr=0.05)
    before = central_moment_discrepancy(x.sigmoid(), y.pow(3)).item()
    for _ in range(150):
        optimizer.zero_grad()
        loss = central_moment_discrepancy(x.sigmoid(), y.pow(3))
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * before


def test_difference_against_numpy():
    x, y = torch.randn(7, 4), torch.randn(7, 5)
    views = [view.double().numpy() - view.double().numpy().mean(0) for view in (x, y)]
    views = [view / np.linalg.norm(view, axis=1, keepdims=True) for view in views]
    expected = np.linalg.norm(views[0].T @ views[1], "fro") ** 2 / 20
    assert difference_loss(x, y).item() == pytest.approx(expected, rel=1e-5)


def test_what_does_not_vary_together_costs_nothing():
    x = torch.tensor([[1.0, 0], [1, 0], [-1, 0], [-1, 0]])
    y = torch.tensor([[0, 1.0], [0, -1], [0, 1], [0, -1]])
    assert difference_loss(x, y).item() == 0
    assert difference_loss(x + 3, y - 1).item() == 0  # a mean is no variation
    close(difference_loss(x, x), torch.tensor(4.0))  # one of 4 entries, 4²
    close(difference_loss(x, -x), difference_loss(x, x))
    close(difference_loss(7 * x, x), difference_loss(x, x))


def test_wrong_samples_are_told(unchecked):
    refused("at least one row; got 0 and 3", central_moment_discrepancy, torch.rand(0, 2), torch.rand(3, 2))
    refused(r"got 0 moments, low 0\.0 and high 1\.0", central_moment_discrepancy, torch.rand(3, 2), torch.rand(3, 2), 0)
    refused("low < high", central_moment_discrepancy, torch.rand(3, 2), torch.rand(3, 2), 5, 1.0, 0.0)
    refused("same rows, and at least one; got 2 and 3", difference_loss, torch.rand(2, 2), torch.rand(3, 2))
