"""Codes: gradients pass and stop where they should, averages are those of k-means, likelihoods integrate to 1."""

import math

import pytest
import torch
from testing_tools import close, seeded

from mmlearn.objectives.codes import (
    EDGE,
    code_statistics,
    codebook_loss,
    codes_in_use,
    commitment,
    copied_gradient,
    cosine_ramp,
    dead_entries,
    divergence_from_even,
    from_open_interval,
    logit_laplace,
    moving_entries,
    to_open_interval,
)


def vectors(seed=0):
    z, entry = (torch.randn(5, 3, generator=seeded(seed + i)).requires_grad_() for i in range(2))
    return z, entry


def test_the_gradient_is_copied_to_the_vectors_and_not_to_the_entries():
    z, entry = vectors()
    weight = torch.randn(5, 3)
    out = copied_gradient(z, entry)
    close(out, entry.detach())
    (out * weight).sum().backward()
    assert torch.equal(z.grad, weight)
    assert entry.grad is None


def test_commitment_moves_vectors_and_the_codebook_loss_entries_and_both_are_one_number():
    z, entry = vectors()
    expected = (z - entry).square().sum(1).mean() / 3
    one, two = commitment(z, entry), codebook_loss(z, entry)
    close(one, expected)
    close(two, expected)
    of_z, of_entry = torch.autograd.grad(expected, (z, entry))
    one.backward()
    assert entry.grad is None
    close(z.grad, of_z)
    two.backward()
    close(entry.grad, of_entry)
    assert commitment(z, z) == 0


def test_statistics_are_those_of_a_loop():
    z, codes = torch.randn(40, 3, generator=seeded()), torch.randint(6, (40,), generator=seeded(1))
    count, total = code_statistics(z, codes, 7)
    for k in range(7):
        assert count[k] == (codes == k).sum()
        close(total[k], z[codes == k].sum(0))


def test_without_memory_entries_are_the_means_of_their_vectors():
    z, codes = torch.randn(40, 3, generator=seeded()), torch.arange(40) % 5
    new = code_statistics(z, codes, 5)
    _, _, entries = moving_entries(torch.rand(5), torch.randn(5, 3), *new, decay=0.0)
    close(entries, torch.stack([z[codes == k].mean(0) for k in range(5)]))


def test_averages_are_those_of_the_paper_and_what_is_not_chosen_stays():
    count, total = torch.tensor([4.0, 2.0, 3.0]), torch.randn(3, 2, generator=seeded())
    before = total / count[:, None]
    new_count, new_total = torch.tensor([10.0, 0.0, 1.0]), torch.randn(3, 2, generator=seeded(1))
    new_total[1] = 0
    got = moving_entries(count, total, new_count, new_total, decay=0.9)
    close(got[0], 0.9 * count + 0.1 * new_count)
    close(got[1], 0.9 * total + 0.1 * new_total)
    close(got[2], got[1] / got[0][:, None])
    close(got[2][1], before[1])
    for _ in range(400):  # and they end where their vectors are
        count, total, entries = moving_entries(count, total, new_count, new_total, decay=0.9)
    close(entries[0], new_total[0] / 10, 1e-4)


def test_dead_is_what_is_chosen_less_than_its_share():
    count = torch.tensor([0.0, 1.0, 2.0, 9.0])  # 3 on average
    assert dead_entries(count, 0.5).tolist() == [True, True, False, False]
    assert not dead_entries(count, 0.0).any()
    assert codes_in_use(torch.tensor([[1, 1], [7, 0]]), 8) == 3 / 8


def test_the_divergence_is_pytorchs_and_goes_from_0_to_ln_k():
    logits = torch.randn(6, 9, generator=seeded()) * 3
    even = torch.full((6, 9), 1 / 9)
    expected = torch.nn.functional.kl_div(even.log(), logits.softmax(-1), reduction="none").sum(-1)
    close(divergence_from_even(logits), expected)
    close(divergence_from_even(torch.zeros(2, 9)), torch.zeros(2))
    certain = (1e4 * torch.eye(9)).requires_grad_()
    found = divergence_from_even(certain)
    close(found.detach(), torch.full((9,), math.log(9)))
    found.sum().backward()
    assert certain.grad.isfinite().all()


@pytest.mark.parametrize(("middle", "log_scale"), [(0.0, 0.0), (1.5, -1.0), (-3.0, 0.5)])
def test_the_likelihood_of_all_pixels_is_1(middle, log_scale):
    logit = torch.linspace(-40, 40, 400_001, dtype=torch.double)
    x = logit.sigmoid()
    inside = (x > 1e-12) & (x < 1 - 1e-12)
    x = x[inside]
    density = (-logit_laplace(x, torch.full_like(x, middle), torch.full_like(x, log_scale))).exp()
    assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-3)
    assert x[density.mul(x * (1 - x)).argmax()].logit().item() == pytest.approx(middle, abs=1e-3)


def test_pixels_are_squeezed_and_come_back():
    pixels = torch.rand(50, generator=seeded())
    squeezed = to_open_interval(pixels)
    assert squeezed.min() >= EDGE
    assert squeezed.max() <= 1 - EDGE
    close(from_open_interval(squeezed), pixels)
    assert from_open_interval(torch.tensor([0.0, 1.0])).tolist() == [0, 1]


def test_a_ramp_begins_and_ends_where_it_should():
    got = [cosine_ramp(torch.tensor(step), 10, 2.0, -1.0).item() for step in (0, 5, 10, 99)]
    assert got == pytest.approx([2, 0.5, -1, -1])
    slope = [cosine_ramp(torch.tensor(step), 10, 0.0, 1.0).item() for step in range(11)]
    assert slope == sorted(slope)
    assert cosine_ramp(torch.tensor(0), 0, 0.0, 6.6).item() == pytest.approx(6.6)
