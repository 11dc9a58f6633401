"""Adversarial losses: what knows nothing, what is perfect, and a weight that makes two gradients equal."""

import math

import torch
from testing_tools import close, seeded

from mmlearn.objectives.adversarial import (
    adaptive_weight,
    hinge_discrimination,
    hinge_generation,
    logistic_discrimination,
    logistic_generation,
)


def test_scores_that_know_nothing():
    zeros = torch.zeros(3, 1, 4, 4)
    assert hinge_discrimination(zeros, zeros) == 1
    assert hinge_generation(zeros) == 0
    close(logistic_discrimination(zeros, zeros), torch.tensor(2 * math.log(2)))
    close(logistic_generation(zeros), torch.tensor(math.log(2)))


def test_a_hinge_asks_for_no_more_than_1():
    real, made = (torch.randn(50, generator=seeded(i)).mul(2).requires_grad_() for i in range(2))
    hinge_discrimination(real, made).backward()
    assert torch.equal(real.grad != 0, real < 1)
    assert torch.equal(made.grad != 0, made > -1)
    assert hinge_discrimination(real.detach().abs() + 1, -made.detach().abs() - 1) == 0


def test_the_logistic_losses_are_pytorchs():
    real, made = (torch.randn(50, generator=seeded(i)) for i in range(2))
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    close(logistic_discrimination(real, made), entropy(real, torch.ones(50)) + entropy(made, torch.zeros(50)))
    close(logistic_generation(made), entropy(made, torch.ones(50)))


def test_the_maker_is_pushed_to_where_scores_are_higher():
    for loss in (hinge_generation, logistic_generation):
        made = torch.randn(7, generator=seeded()).requires_grad_()
        loss(made).backward()
        assert (made.grad < 0).all()


def two_losses(scale):
    layer = torch.nn.Linear(4, 3)
    x = torch.randn(5, 4, generator=seeded())
    painted = layer(x)
    return painted.square().mean(), scale * painted.sum(), layer.weight


def test_weighted_both_losses_pull_equally_hard_at_the_last_layer():
    for scale in (0.01, 1.0, 300.0):
        rebuilding, passing, last = two_losses(scale)
        weight = adaptive_weight(rebuilding, passing, last)
        assert not weight.requires_grad
        one, two = (torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (rebuilding, passing))
        close(weight * two / one, torch.tensor(1.0), 2e-3)
        (rebuilding + weight * passing).backward()  # the graph is still there


def test_the_weight_has_bounds_and_is_1_where_no_gradient_is_taken():
    rebuilding, passing, last = two_losses(0.0)
    assert adaptive_weight(1e6 * rebuilding, passing, last) == 1e4
    with torch.no_grad():
        assert adaptive_weight(rebuilding, passing, last) == 1
    assert adaptive_weight(rebuilding, passing, last.detach()) == 1
