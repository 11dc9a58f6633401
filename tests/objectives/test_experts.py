"""Experts: balance, entropies and thresholds at the points where their values are known."""

import math

import pytest
import torch
from testing_tools import close

from mmlearn.objectives.experts import balance, entropy, global_entropy, local_entropy, router_z, top_experts

E = 4
REAL = torch.ones(8, dtype=torch.bool)
UNIFORM = torch.full((8, E), 1 / E)
ONE = torch.tensor([[1.0, 0, 0, 0]] * 8)  # all to the first
EACH = torch.eye(E).repeat(2, 1)  # each expert gets two, for sure


def test_balance_is_1_where_routing_is_uniform_and_n_where_one_expert_gets_all():
    close(balance(UNIFORM, REAL), torch.tensor(1.0))
    close(balance(EACH, REAL), torch.tensor(1.0))
    close(balance(ONE, REAL), torch.tensor(float(E)))
    close(balance(UNIFORM, REAL, 3), torch.tensor(1.0))


def test_balance_pushes_away_from_where_the_most_go():
    logits = torch.randn(50, E, generator=torch.Generator().manual_seed(0))
    logits[:, 2] += 1.5
    logits.requires_grad_()
    balance(logits.softmax(-1), torch.ones(50, dtype=torch.bool)).backward()
    assert logits.grad.sum(0).argmax() == 2
    assert logits.grad.sum(0)[2] > 0


def test_entropies_have_their_bounds():
    close(entropy(UNIFORM), torch.full((8,), math.log(E)))
    close(entropy(ONE), torch.zeros(8))
    close(local_entropy(UNIFORM, REAL), torch.tensor(math.log(E)))
    close(local_entropy(EACH, REAL), torch.tensor(0.0))
    close(global_entropy(ONE, REAL, 3.0), torch.tensor(math.log(3)))
    close(global_entropy(EACH, REAL, float(E)), torch.tensor(0.0))


def test_no_more_experts_are_asked_for_than_the_threshold():
    two = torch.eye(E)[[0, 1] * 4]
    assert global_entropy(two, REAL, 1.9) == 0
    close(global_entropy(two, REAL, 3.0), torch.tensor(math.log(3) - math.log(2)))
    probability = two.clone().clamp(0.01, 0.97).requires_grad_()
    global_entropy(probability, REAL, 1.5).backward()
    assert not probability.grad.any()


def test_padding_counts_nowhere():
    generator = torch.Generator().manual_seed(1)
    probability, real = torch.randn(8, E, generator=generator).softmax(-1), torch.arange(8) < 5
    logits = probability.log()
    for loss in (balance, local_entropy, lambda p, r: global_entropy(p, r, 4.0)):
        close(loss(probability, real), loss(probability[:5], REAL[:5]))
        assert loss(probability, ~REAL) == 0
    close(router_z(logits + 3, real), torch.tensor(9.0))
    assert router_z(logits, ~REAL) == 0


def test_the_likeliest_come_first():
    weight, choice = top_experts(torch.tensor([[0.1, 0.6, 0.3]]), 2)
    close(weight, torch.tensor([[0.6, 0.3]]))
    assert choice.tolist() == [[1, 2]]
    with pytest.raises(ValueError, match="1 to 3 experts, not to 4"):
        top_experts(torch.ones(2, 3), 4)
    with pytest.raises(ValueError, match="can use 1 to 4 experts, not 5"):
        global_entropy(UNIFORM, REAL, 5)
