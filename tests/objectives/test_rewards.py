"""Learning from a reward: sums by hand, the expected reward's own gradient, and what changes nothing."""

import itertools
import math

import pytest
import torch
from testing_tools import close, refused, seeded

from mmlearn.objectives import self_critical, token_log_probs, until_end

V, END = 3, 2


def texts(length=2):
    """All texts of up to ``length`` tokens of 0, 1 and the end, padded with 0."""
    found = set()
    for text in itertools.product(range(V), repeat=length):
        end = text.index(END) + 1 if END in text else length
        found.add(text[:end] + (0,) * (length - end))
    return torch.tensor(sorted(found))


def test_the_sum_by_hand():
    log_probs = torch.tensor([[-1.0, -2.0, -4.0], [-0.5, -0.25, -8.0]], requires_grad=True)
    written = torch.tensor([[True, True, True], [True, True, False]])
    reward, baseline = torch.tensor([3.0, 1.0]), torch.tensor([1.0, 5.0])
    loss = self_critical(log_probs, written, reward, baseline)
    close(loss, torch.tensor(-(2 * -7.0 + -4 * -0.75) / 2))
    loss.backward()
    close(log_probs.grad, torch.tensor([[-1.0, -1.0, -1.0], [2.0, 2.0, 0.0]]))


def test_nothing_is_learned_where_the_drawn_text_is_the_greedy_one():
    logits = torch.randn(4, 5, V, generator=seeded(), requires_grad=True)
    tokens = logits.argmax(-1)
    reward = torch.rand(4, generator=seeded(1))
    loss = self_critical(token_log_probs(logits, tokens), until_end(tokens, END), reward, reward.clone())
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_on_average_the_gradient_is_that_of_the_expected_reward(baseline):
    """Over all texts, each as often as it is drawn. A baseline changes nothing, because odds sum to 1."""
    every = texts()
    written, reward = until_end(every, END), torch.rand(len(every), generator=seeded(2), dtype=torch.double)
    logits = torch.randn(2, V, generator=seeded(3), dtype=torch.double, requires_grad=True)

    def log_odds():
        return token_log_probs(logits.expand(len(every), 2, V), every)

    odds = log_odds().masked_fill(~written, 0).sum(1).exp()
    close(odds.sum(), torch.tensor(1.0, dtype=torch.double))
    expected = torch.autograd.grad((odds * reward).sum(), logits)[0]
    found = torch.zeros_like(logits)
    for i, share in enumerate(odds.detach()):
        row = slice(i, i + 1)
        base = torch.full_like(reward[row], baseline)
        loss = self_critical(log_odds()[row], written[row], reward[row], base)
        found -= share * torch.autograd.grad(loss, logits)[0]
    close(found, expected, 1e-9)


def test_no_gradient_reaches_the_rewards():
    reward, baseline = (torch.rand(3, generator=seeded(k), requires_grad=True) for k in (0, 1))
    log_probs = torch.randn(3, 4, generator=seeded(2), requires_grad=True)
    self_critical(log_probs, torch.ones(3, 4, dtype=torch.bool), reward, baseline).backward()
    assert reward.grad is None
    assert baseline.grad is None
    assert log_probs.grad.all()


def test_what_is_no_number_is_refused():
    log_probs, written, fine = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool), torch.ones(2)
    for wrong in (math.nan, math.inf):
        spoilt = torch.tensor([1.0, wrong])
        refused("Rewards are finite numbers; text 1 has", self_critical, log_probs, written, spoilt, fine)
        refused("Rewards are finite numbers; text 1 has 1.0", self_critical, log_probs, written, fine, spoilt)


def test_probabilities_are_of_the_tokens():
    logits = torch.tensor([[[0.0, math.log(3.0)], [0.0, 0.0]]])
    close(token_log_probs(logits, torch.tensor([[1, 0]])).exp(), torch.tensor([[0.75, 0.5]]))


def test_what_stands_behind_the_end_is_not_written():
    tokens = torch.tensor([[0, 1, END, END, 1], [END, 0, 0, END, 0], [0, 1, 0, 1, 0]])
    wanted = [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]]
    assert until_end(tokens, END).int().tolist() == wanted
