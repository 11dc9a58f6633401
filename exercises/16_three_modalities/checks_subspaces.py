"""What is shared between views and what is private: what each must do, told one property at a time."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from mmlearn.exercises import agreement, case, expect, expect_close, expect_tensor, expect_trains, task
from mmlearn.exercises.inputs import between
from mmlearn.objectives import central_moment_discrepancy, difference_loss


@task(central_moment_discrepancy, difficulty=3, minutes=20)
def check_central_moment_discrepancy(function: Callable) -> None:
    """0 for one distribution, means by their distance, moments about the mean, each by its power of the width."""
    n, m, d = between(6, 9), between(11, 14), 4
    x, y = torch.rand(n, d), torch.rand(m, d) ** 2
    same = agreement(function, central_moment_discrepancy)
    expect_tensor(function(x, y), ())
    expect_close(function(x, x), 0.0, "Equal samples must give 0.", "each difference is 0 there.")
    expect_close(
        function(x, x[torch.randperm(n)].repeat(2, 1)),
        0.0,
        "The same rows in another order, or all of them twice, must give 0.",
        "a mean over rows, feature by feature: rows are not compared one by one.",
    )
    step = torch.rand(d)
    expect_close(
        function(x, x + step, 5, -2.0, 2.0),
        step.norm() / 4,
        "A sample that is only moved must differ by the distance of the means, over the width high - low.",
        "higher moments are taken about the sample's own mean; the norm is over features, not squared.",
    )
    mean = "With one moment it must be the distance of the means."
    same((x, y, 1), mean, "the Euclidean norm of the difference, over high - low.")
    for moments in (2, 3, 5):
        same(
            (x, y, moments),
            f"With {moments} moments it must sum the distances of the moments up to {moments}.",
            "the k-th is the mean of (x - mean) to the power of k, with its sign, and a norm for each k.",
        )
    with case("Features from -1 to 3"):
        expect_close(
            function(4 * x - 1, 4 * y - 1, 5, -1.0, 3.0),
            function(x, y),
            "It must be the same as for features from 0 to 1.",
            "the distance of the k-th moments is divided by (high - low) to the power of k.",
        )
    expect_trains(function, x, y, like=central_moment_discrepancy)
    with case("Where both are equal"):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(leaf, x), leaf)
        hint = "torch.linalg.vector_norm has gradient 0 at 0; a square root written out has none."
        expect(gradient.isfinite().all(), "Its gradient must be finite.", hint)


@task(difference_loss, difficulty=2, minutes=15)
def check_difference_loss(function: Callable) -> None:
    """0 for what does not vary together, however far or long; the mean of squares of all d · e entries."""
    n, d, e = between(7, 11), 4, 6
    x, y = torch.randn(n, d), torch.randn(n, e)
    got = expect_tensor(function(x, y), ())
    one = torch.tensor([[1.0, 0], [1, 0], [-1, 0], [-1, 0]])
    two = torch.tensor([[0, 1.0], [0, -1], [0, 1], [0, -1]])
    expect_close(
        function(one, two),
        0.0,
        "Two views that never vary together must give 0.",
        "features of one times features of the other, summed over rows: x.T @ y.",
    )
    expect_close(
        function(x + 3 * torch.randn(d), y - 2 * torch.randn(e)),
        got,
        "A constant that is added to a feature must change nothing.",
        "take the mean over rows from each feature, before rows get unit length.",
    )
    one = F.pad(one, (0, 1))
    expect_close(
        function(one, -one),
        16 / 9,
        "A view and its opposite do vary together: here one of nine entries is -4, so the loss is 16/9.",
        "squares: what is negative counts as well.",
    )
    expect_close(
        function(x * (1 + 9 * torch.rand(())), y),
        got,
        "A view that is some times larger must give the same.",
        "rows have unit length, so that the loss cannot fall by making all small.",
    )
    agreement(function, difference_loss)(
        (x, y),
        "It must be the mean of the squares of all d · e entries, of rows of unit length.",
        "center over rows, normalise each row, multiply, square, and the mean; nothing is divided by n.",
    )
    with case("One row"):
        expect_close(function(x[:1], y[:1]), 0.0, "It must be 0, not NaN.", "F.normalize with its eps.")
    expect_trains(function, x, y, like=difference_loss)
