"""Gumbel noise makes choices samples, and gradients pass straight through them."""

import torch
from testing_tools import close, seeded

from mmlearn.layers.gumbel import annealed, gumbel_noise, straight_through


def test_noise_makes_choices_as_often_as_they_are_likely():
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0])
    noise = gumbel_noise((20_000, 4), generator=seeded())
    share = torch.bincount((logits + noise).argmax(-1), minlength=4) / 20_000
    close(share, logits.softmax(-1), 0.015)
    assert torch.equal(noise, gumbel_noise((20_000, 4), generator=seeded()))
    assert not torch.equal(noise, gumbel_noise((20_000, 4), generator=seeded(1)))


def test_straight_through_is_pytorchs():
    logits = torch.randn(30, 5, requires_grad=True)
    torch.manual_seed(4)
    noise = -torch.empty(30, 5).exponential_().log()
    torch.manual_seed(4)
    expected = torch.nn.functional.gumbel_softmax(logits, tau=1.3, hard=True)
    got, weight = straight_through(logits, noise, 1.3), torch.randn(30, 5)
    close(got, expected)
    assert set(got.unique().tolist()) == {0.0, 1.0}  # exactly: nothing is left of the soft choice
    close(*(torch.autograd.grad((choice * weight).sum(), logits)[0] for choice in (got, expected)))


def test_a_temperature_falls_to_its_least():
    found = [annealed((2.0, 0.5, 0.9), torch.tensor(step)).item() for step in (0, 1, 5, 100)]
    close(torch.tensor(found), torch.tensor([2.0, 1.8, 2 * 0.9**5, 0.5]))
