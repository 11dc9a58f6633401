"""Spans move to the end and come back, against a plain loop; and where they are none, nothing changes."""

from itertools import pairwise

import pytest
import torch
from testing_tools import close, refused, seeded

from mmlearn.objectives import causal_language_modelling
from mmlearn.objectives.causal_masked import causal_masked_modelling, draw_shares, move_spans, put_back, token_spans

SENTINELS, END = range(100, 103), 103


def documents(b=6, n=12, seed=0):
    document = torch.randint(1, 90, (b, n), generator=seeded(seed))
    length = torch.randint(4, n + 1, (b,), generator=seeded(seed + 1))
    return document, length


def moved_by_a_loop(document, spans):
    """One row, with lists."""
    body, tail, at = [], [], 0
    for number, (start, stop) in enumerate(spans):
        if stop > start:
            body += [*document[at:start], SENTINELS[number]]
            tail += [SENTINELS[number], *document[start:stop], END]
            at = stop
    return body + document[at:] + tail


def test_the_example_of_the_docstring():
    spans = torch.tensor([[[1, 3]]])
    moved, mask = move_spans(torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([5]), spans, 100, 103)
    assert moved.tolist() == [[1, 100, 4, 5, 100, 2, 3, 103]]
    assert mask.all()


@pytest.mark.parametrize("seed", range(6))
def test_moving_is_that_of_a_loop_and_is_undone(seed):
    document, length = documents(seed=seed)
    spans = token_spans(draw_shares(6, 3, 2.0, generator=seeded(seed)), length)
    moved, mask = move_spans(document, length, spans, SENTINELS.start, END)
    assert moved.shape == mask.shape == (6, 12 + 9)
    for row in range(6):
        own = document[row, : length[row]]
        expected = moved_by_a_loop(own.tolist(), spans[row].tolist())
        assert moved[row][mask[row]].tolist() == expected
        assert mask[row].tolist() == [True] * len(expected) + [False] * (21 - len(expected))
        assert (moved[row][~mask[row]] == 0).all()
        assert torch.equal(put_back(torch.tensor(expected), SENTINELS, END), own)


def test_spans_are_within_documents_and_apart():
    length = torch.arange(1, 41)
    shares = draw_shares(40, 3, 2.0, generator=seeded())
    spans = token_spans(shares, length)
    assert (spans[..., 1] <= length[:, None]).all()
    assert (spans[..., 0] <= spans[..., 1]).all()
    for row in spans.tolist():
        real = [(start, stop) for start, stop in row if stop > start]
        assert all(one[1] <= two[0] for one, two in pairwise(real))
    assert len({int((row[:, 1] > row[:, 0]).sum()) for row in spans}) >= 3


def test_an_end_stops_at_the_next_span_that_is_there():
    shares = torch.tensor([[[0.1, 0.45], [0, 0], [0.45, 0.6]], [[0.1, 0.45], [0.45, 0.6], [0, 0]]])
    spans = token_spans(shares, torch.tensor([10, 10]))
    assert spans.tolist() == [[[1, 4], [0, 0], [4, 6]], [[1, 4], [4, 6], [0, 0]]]


def test_single_spans_are_those_of_the_official_code():
    shares = draw_shares(500, 1, 1.0, generator=seeded())
    there = shares[:, 0, 1] > 0
    assert there.float().mean().item() == pytest.approx(1 - 0.368, abs=0.06)
    middle = shares[there, 0].mean(0)
    close(middle, torch.tensor([1 / 3, 2 / 3]), 0.05)  # the smaller and the larger of two even draws
    spans = token_spans(shares, torch.full((500,), 10))
    for (start, stop), (first, last) in zip(spans[there, 0].tolist(), shares[there, 0].double().tolist()):
        if stop > start:
            assert (start, stop) == (int(first * 10), int(last * 10 + 0.5))
    assert torch.equal(shares, draw_shares(500, 1, 1.0, generator=seeded()))


def test_without_spans_it_is_causal_language_modelling():
    document, length = documents()
    logits = torch.randn(6, 12, 110, generator=seeded())
    moved, mask = move_spans(document, length, torch.zeros(6, 0, 2, dtype=torch.long), 100, END)
    assert torch.equal(moved[mask], document[torch.arange(12) < length[:, None]])
    close(causal_masked_modelling(logits, moved, mask, SENTINELS), causal_language_modelling(logits, moved, mask))


def test_sentinels_are_not_asked_and_ends_are():
    document, length = documents()
    spans = token_spans(draw_shares(6, 3, 2.0, generator=seeded(4)), length)
    moved, mask = move_spans(document, length, spans, 100, END)
    logits = torch.randn(*moved.shape, 110, generator=seeded(), requires_grad=True)
    loss = causal_masked_modelling(logits, moved, mask, SENTINELS)
    loss.backward()
    asked = (logits.grad != 0).any(-1)[:, :-1]
    following, real = moved[:, 1:], mask[:, 1:]
    assert torch.equal(asked, real & ~((following >= 100) & (following < 103)))
    assert (asked & (following == END)).any()
    rows = logits.detach()[:, :-1][asked].log_softmax(-1)
    close(loss.detach(), -rows.gather(1, following[asked][:, None]).mean())


def test_what_cannot_be_is_told():
    for wrong in ([[0.5, 0.2]], [[0.1, 1.5]], [[0.5, 0.9], [0.1, 0.3]]):
        refused("shares of a document", token_spans, torch.tensor([wrong]), torch.tensor([8]))
    refused("stands twice", put_back, torch.tensor([1, 100, 4]), SENTINELS, END)
    refused("ends with 103", put_back, torch.tensor([1, 100, 4, 100, 2]), SENTINELS, END)
