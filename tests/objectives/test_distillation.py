"""The momentum encoder follows the network, the queue keeps the newest rows, and targets mix label and teacher."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close, refused, seeded
from torch import nn

from mmlearn.objectives import (
    distilled_targets,
    info_nce,
    inherit_knowledge,
    inheritance_rate,
    pair_cross_entropy,
    same_caption,
    soft_cross_entropy,
    update_momentum_encoder,
)
from mmlearn.objectives.distillation import momentum_update, momentum_weights

SEEDS = range(3)
B, C = 5, 7


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# The momentum encoder.


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.995, 1.0])
def test_weights_after_a_training_are_a_sum_over_its_steps(momentum):
    weights = normal(6, 2, 3)
    expected = momentum**5 * weights[0]
    expected = expected + sum((1 - momentum) * momentum ** (5 - i) * weights[i] for i in range(1, 6))
    close(momentum_weights(weights, momentum), expected, 1e-14)
    assert not momentum_weights(weights.requires_grad_()[:1], momentum).requires_grad
    refused("starts at the weights before the first step", momentum_weights, weights[:0], momentum)


def network(width=4):
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2)).double()


def values(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_the_update_of_two_tensors_leaves_both_and_has_no_gradient():
    slow_copy, online = torch.tensor([0.0, 4.0]), torch.tensor([8.0, 4.0], requires_grad=True)
    moved = momentum_update(slow_copy, online, 0.75)
    assert moved.tolist() == [2, 4]
    assert not moved.requires_grad
    assert (slow_copy.tolist(), online.tolist()) == ([0, 4], [8, 4])


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.995, 1.0])
def test_the_momentum_encoder_follows_its_equation(momentum):
    slow_copy, online = network(), network()
    before, now = values(slow_copy), values(online)
    update_momentum_encoder(slow_copy, online, momentum)
    for got, slow, fast, kept in zip(values(slow_copy), before, now, values(online)):
        close(got, momentum * slow + (1 - momentum) * fast, 1e-14)
        assert torch.equal(kept, fast)
        if momentum in (0, 1):
            assert torch.equal(got, slow if momentum else fast)


def test_the_update_comes_after_the_optimisers_step():
    """Three steps by hand: the momentum encoder after step k holds the weights after step k with 1 - m."""
    online = network()
    slow_copy = copy.deepcopy(online).requires_grad_(False)
    optimizer = torch.optim.SGD(online.parameters(), lr=0.1)
    expected = values(online)
    for step in range(3):
        optimizer.zero_grad()
        online(normal(6, 3, seed=step)).square().sum().backward()
        optimizer.step()
        update_momentum_encoder(slow_copy, online, 0.9)
        expected = [0.9 * slow + 0.1 * fast for slow, fast in zip(expected, values(online))]
    for got, slow in zip(values(slow_copy), expected):
        close(got, slow, 1e-13)
    assert not torch.allclose(slow_copy[2].weight, online[2].weight, atol=1e-2)


def test_buffers_are_copied_and_gradients_stay_out():
    slow_copy, online = network(), network()
    online(normal(6, 3)).sum().backward()
    update_momentum_encoder(slow_copy, online, 0.9)
    for slow, fast in zip(slow_copy.buffers(), online.buffers()):
        assert torch.equal(slow, fast)
        assert slow is not fast
    assert slow_copy[1].num_batches_tracked == 1
    assert all(p.grad is None and p.is_leaf for p in slow_copy.parameters())
    assert all(p.requires_grad for p in slow_copy.parameters())  # whether it learns is for its owner to say


def test_the_momentum_encoder_needs_a_network_like_itself():
    kept = network()
    before = values(kept)
    for other in (network(5), nn.Linear(3, 4).double(), nn.Sequential(network())):
        refused("from one configuration", update_momentum_encoder, kept, other, 0.9)
    for momentum in (-0.1, 1.1, math.nan):
        refused("momentum must be from 0 to 1", update_momentum_encoder, kept, network(), momentum)
    assert all(torch.equal(x, y) for x, y in zip(values(kept), before))


# Soft targets.


@pytest.mark.parametrize("seed", SEEDS)
def test_soft_cross_entropy_equals_loops(seed):
    logits, target = normal(B, C, seed=seed), normal(B, C, seed=seed + 10).softmax(1)
    total = 0
    for z, y in zip(logits.tolist(), target.tolist()):
        normaliser = math.log(sum(map(math.exp, z)))
        total -= sum(p * (x - normaliser) for p, x in zip(y, z))
    close(soft_cross_entropy(logits, target).item(), total / B, 1e-13)


def test_soft_cross_entropy_of_a_certain_target_is_cross_entropy():
    logits, label = normal(B, C), torch.tensor([0, 3, 6, 2, 2])
    close(soft_cross_entropy(logits, F.one_hot(label, C).double()), F.cross_entropy(logits, label), 1e-14)
    close(soft_cross_entropy(torch.zeros(B, C), torch.full((B, C), 1 / C)).item(), math.log(C))


def test_soft_cross_entropy_is_lowest_at_the_target():
    target = normal(B, C).softmax(1)
    logits = target.log().requires_grad_()
    lowest = soft_cross_entropy(logits, target)
    lowest.backward()
    close(lowest.item(), -(target * target.log()).sum(1).mean().item(), 1e-14)
    assert logits.grad.abs().max() < 1e-15
    assert soft_cross_entropy(logits + 0.1 * normal(B, C, seed=1), target) > lowest + 1e-4


def test_soft_cross_entropy_needs_a_row():
    refused("at least one", soft_cross_entropy, torch.zeros(0, C), torch.zeros(0, C))


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_targets_mix_label_and_teacher(alpha):
    teacher = normal(3, 4)
    positives = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 1], [1, 1, 1, 1]]).bool()
    label = torch.tensor([[1, 0, 0, 0], [0, 0.5, 0, 0.5], [0.25] * 4]).double()
    weights = teacher.exp()
    got = distilled_targets(teacher, positives, alpha)
    close(got, alpha * weights / weights.sum(1, keepdim=True) + (1 - alpha) * label, 1e-14)
    close(got.sum(1), torch.ones(3, dtype=torch.float64), 1e-14)
    if alpha == 0:
        assert torch.equal(got, label)


@pytest.mark.parametrize("seed", SEEDS)
def test_without_a_teacher_it_is_plain_contrast(seed):
    u, v = (F.normalize(normal(B, 4, seed=seed + k), dim=1) for k in (0, 50))
    logits, teacher = 3.0 * u @ v.T, normal(B, B, seed=seed + 99)
    for positives in (torch.eye(B, dtype=torch.bool), same_caption(torch.tensor([3, 7, 3, 3, 1]))):
        target = distilled_targets(teacher, positives, 0.0)
        both = (soft_cross_entropy(logits, target) + soft_cross_entropy(logits.T, target)) / 2
        close(both, pair_cross_entropy(logits, logits.T, positives), 1e-14)
        scale = torch.tensor(3.0, dtype=torch.float64)
        close(both, info_nce(u, v, scale, positives), 1e-14)


def test_the_gradient_is_that_of_the_papers_divergence():
    """(1 - α) CE(label) + α KL(teacher || student), the form of equation 6, differs by a constant alone."""
    alpha, teacher, label = 0.4, normal(B, C, seed=1), torch.tensor([0, 3, 6, 2, 2])
    logits = normal(B, C).requires_grad_()
    target = distilled_targets(teacher, F.one_hot(label, C).bool(), alpha)
    (got,) = torch.autograd.grad(soft_cross_entropy(logits, target), logits)
    divergence = F.kl_div(logits.log_softmax(1), teacher.softmax(1), reduction="batchmean")
    paper = (1 - alpha) * F.cross_entropy(logits, label) + alpha * divergence
    close(got, torch.autograd.grad(paper, logits)[0], 1e-14)


def test_the_teacher_has_no_gradient():
    teacher = normal(B, B).requires_grad_()
    assert not distilled_targets(teacher, torch.eye(B, dtype=torch.bool), 0.4).requires_grad


def test_targets_need_a_share_and_something_that_fits():
    for alpha in (-0.1, 1.1, math.nan):
        refused("alpha must be from 0 to 1", distilled_targets, normal(B, B), torch.eye(B, dtype=torch.bool), alpha)
    positives = torch.eye(B, dtype=torch.bool)
    positives[2] = False
    refused("at least one candidate", distilled_targets, normal(B, B), positives, 0.4)


# Knowledge inheritance.


def student_and_teacher():
    generator = seeded(4)
    return (torch.randn(6, 9, generator=generator).requires_grad_(), torch.randn(6, 9, generator=generator))


def test_without_a_teacher_it_is_the_plain_run_bit_for_bit():
    student, teacher = student_and_teacher()
    label = torch.arange(6)
    plain = torch.nn.functional.cross_entropy(student, label)
    loss = inherit_knowledge(plain, student, torch.full_like(teacher, torch.nan), 0.0)
    assert torch.equal(loss, plain)
    assert torch.equal(torch.autograd.grad(loss, student, retain_graph=True)[0], torch.autograd.grad(plain, student)[0])


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_teachers_part_is_a_divergence(temperature):
    student, teacher = student_and_teacher()
    zero = torch.tensor(0.0)
    p, q = (teacher / temperature).softmax(-1), (student / temperature).softmax(-1)
    divergence = (p * (p / q).log()).sum(-1).mean() * temperature**2
    close(inherit_knowledge(zero, student, teacher, 1.0, temperature), divergence)
    close(inherit_knowledge(torch.tensor(3.0), student, teacher, 0.25, temperature), 0.75 * 3 + 0.25 * divergence)
    assert divergence > 0
    close(inherit_knowledge(zero, student, student.detach() + 7, 1.0), zero)  # a shift of all logits says nothing


def test_the_teacher_learns_nothing():
    student, teacher = student_and_teacher()
    teacher.requires_grad_()
    inherit_knowledge(student.sum() * 0, student, teacher, 0.5).backward()
    assert teacher.grad is None
    assert student.grad.any()


def test_trust_in_the_teacher_falls_to_nothing():
    rates = [inheritance_rate(step, 10, 0.8) for step in range(15)]
    assert rates[0] == 0.8
    assert rates == sorted(rates, reverse=True)
    assert rates[10:] == [0.0] * 5
    close(torch.tensor(rates[5]), torch.tensor(0.4))


def test_a_student_without_a_teacher_ends_with_the_weights_of_the_plain_run():
    x, label = torch.randn(12, 5, generator=seeded(6)), torch.arange(12) % 4

    def trained(alpha):
        """The weights after six steps with this rate, or without the objective."""
        torch.manual_seed(0)
        student, teacher = nn.Linear(5, 4), nn.Linear(5, 4).requires_grad_(False)
        optimizer = torch.optim.AdamW(student.parameters(), lr=0.1)
        for step in range(6):
            logits = student(x)
            loss = F.cross_entropy(logits, label)
            if alpha is not None:
                loss = inherit_knowledge(loss, logits, teacher(x), inheritance_rate(step, 6, alpha))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return student.weight.detach()

    assert torch.equal(trained(0.0), trained(None))
    assert not torch.allclose(trained(0.5), trained(None), atol=1e-3)


def test_what_cannot_be_inherited(unchecked):
    student, teacher = student_and_teacher()
    loss = torch.tensor(1.0)
    refused("alpha is from 0 to 1", inherit_knowledge, loss, student, teacher, 1.5)
    refused("temperature above 0", inherit_knowledge, loss, student, teacher, 0.5, 0.0)
    refused("the same positions and tokens", inherit_knowledge, loss, student, teacher[:, :5], 0.5)
    refused("at least one step", inheritance_rate, 0, 0)
