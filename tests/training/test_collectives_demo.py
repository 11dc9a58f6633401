"""Collectives on the rows of a tensor: sums, who knows what, and how much is sent."""

import pytest
import torch

from mmlearn.training.collectives_demo import gather_backward, ring_all_reduce, to_next_rank


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("n", [1, 2, 7, 16])
def test_a_ring_sums_and_sends_two_shares_of_the_whole(ranks, n):
    part, sent = torch.randn(ranks, n, dtype=torch.float64).float(), []

    def send(message):
        sent.append(message.shape[1])
        return to_next_rank(message)

    before = part.clone()
    got = ring_all_reduce(part, send)
    torch.testing.assert_close(got, part.sum(0).expand(ranks, n))
    assert torch.equal(part, before)
    assert (got == got[:1]).all()  # bit for bit, so that weights stay the same on all ranks
    assert sum(sent) == 2 * (ranks - 1) * -(-n // ranks)


def test_a_rank_knows_what_it_was_sent_and_no_more():
    def nothing(message):
        return torch.zeros_like(message)

    part = torch.randn(4, 8)
    before = ring_all_reduce(part, nothing)
    part[0] += 1
    assert torch.equal(ring_all_reduce(part, nothing)[1:], before[1:])


@pytest.mark.parametrize("rest", [(), (3,), (2, 3)])
def test_gradients_of_gathered_rows_are_those_of_autograd(rest):
    ranks, b = 3, 2
    rows = [torch.randn(b, *rest, requires_grad=True) for _ in range(ranks)]
    weights = torch.randn(ranks, ranks * b, *rest)  # each rank weighs the rows of all in its own way
    loss = sum((torch.cat(rows) * weight).sum() for weight in weights)
    wanted = torch.autograd.grad(loss, rows)
    torch.testing.assert_close(gather_backward(weights), torch.stack(wanted))
