"""Self-distillation: targets have no gradient and one size in every layer, and only hidden positions cost something."""

import pytest
import torch
from testing_tools import close

from mmlearn.objectives import contextual_targets, masked_regression, rising_decay


def layers(count=4, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    return [scale * 10.0**i * torch.randn(2, 9, 6, generator=generator).requires_grad_() + i for i in range(count)]


def test_targets_are_the_mean_of_the_last_layers_however_large_they_are():
    found = layers()
    target = contextual_targets(found, 2)
    each = [(x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt() for x in found[2:]]
    close(target, (each[0] + each[1]) / 2)
    close(contextual_targets(layers(scale=7.0), 2), target, 1e-3)
    assert not target.requires_grad
    assert not torch.allclose(contextual_targets(found, 3), target)


def test_over_time_each_feature_is_normalised_and_padding_has_no_say():
    found, real = layers(), torch.arange(9) < torch.tensor([[9], [5]])
    target = contextual_targets(found, 1, real, over_time=True)
    close(target[1, :5].mean(0), torch.zeros(6))
    close(target[1, :5].var(0, unbiased=False), torch.ones(6), 1e-3)
    other = [torch.where(real[..., None], x, torch.tensor(float("nan"))) for x in found]
    close(contextual_targets(other, 1, real, over_time=True), target)
    close(contextual_targets([x[1:, :5] for x in found], 1, over_time=True)[0], target[1, :5])
    close(contextual_targets(found, 1, over_time=True), torch.nn.functional.instance_norm(found[-1].mT).mT)


def test_only_hidden_positions_cost_something():
    target, masked = torch.randn(2, 5, 4), torch.tensor([[True, False, True, False, False]] * 2)
    said = torch.where(masked[..., None], target + 3.0, torch.tensor(float("nan"))).requires_grad_()
    for beta, cost in ((0.0, 9.0), (1.0, 2.5), (2.0, 2.0), (6.0, 0.75)):
        close(masked_regression(said, target, masked, beta), torch.tensor(cost))
    assert masked_regression(said, target, torch.zeros_like(masked)) == 0


def test_a_small_error_is_square_and_a_large_one_straight():
    target, masked = torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool)
    cost = lambda x: masked_regression(torch.full((1, 1, 1), x), target, masked, 4.0)  # noqa: E731
    close(cost(2.0), torch.tensor(0.5))
    close(cost(3.999), cost(4.001), 1e-2)
    close(cost(11.0) - cost(10.0), torch.tensor(1.0))


def test_the_decay_rises_in_a_straight_line_and_stays():
    assert rising_decay(0, 0.9, 0.99, 100) == 0.9
    assert rising_decay(50, 0.9, 0.99, 100) == pytest.approx(0.945)
    assert rising_decay(100, 0.9, 0.99, 100) == rising_decay(10**6, 0.9, 0.99, 100) == 0.99
    assert rising_decay(0, 0.9, 0.99, 0) == 0.99


def test_what_cannot_be_is_told():
    with pytest.raises(ValueError, match=r"mean of 1 to 4 layers, not of 5\."):
        contextual_targets(layers(), 5)
    with pytest.raises(ValueError, match="beta is 0 or more"):
        masked_regression(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool), -1.0)
    with pytest.raises(ValueError, match="A decay rises between 0 and 1"):
        rising_decay(0, 0.99, 0.9, 100)
