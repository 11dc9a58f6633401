"""Momentum contrast is InfoNCE where nothing waits and nobody teaches; hard triples hold every pair and its rivals."""

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close

from mmlearn.objectives import info_nce, same_caption
from mmlearn.objectives.align import fitting, hard_triples, momentum_contrast, ramp


def unit(n, d=5):
    return F.normalize(torch.randn(n, d), dim=-1)


def test_without_queue_and_teacher_it_is_info_nce():
    fast = unit(6).requires_grad_(), unit(6).requires_grad_()
    none = torch.zeros(0, 5), torch.zeros(0, 5)
    for ids in (torch.arange(6), torch.tensor([1, 2, 1, 3, 3, 3])):
        fits = same_caption(ids)
        got, expected = momentum_contrast(fast, fast, none, fits, 9.0, 0.0), info_nce(*fast, torch.tensor(9.0), fits)
        close(got, expected)
        for one, two in zip(torch.autograd.grad(got, fast), torch.autograd.grad(expected, fast), strict=True):
            close(one, two)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_momentum_contrast_against_counting(alpha):
    fast, slow, queues = (tuple(unit(n) for _ in range(2)) for n in (3, 3, 4))
    fits = torch.rand(3, 7) < 0.3
    fits[:, :3] |= torch.eye(3, dtype=torch.bool)
    total = 0.0
    for here, there in ((0, 1), (1, 0)):
        candidates = [*slow[there], *queues[there]]
        for i in range(3):
            scores = torch.stack([7 * fast[here][i] @ other for other in candidates]).log_softmax(0)
            taught = torch.stack([7 * slow[here][i] @ other for other in candidates]).softmax(0)
            for j in range(7):
                target = alpha * taught[j] + (1 - alpha) * fits[i, j] / fits[i].sum()
                total -= float(target * scores[j]) / 6
    assert momentum_contrast(fast, slow, queues, fits, 7.0, alpha).item() == pytest.approx(total, abs=1e-5)


def test_the_temperature_learns_and_the_teacher_does_not():
    scale = torch.tensor(5.0, requires_grad=True)
    fast, slow = (unit(4).requires_grad_(), unit(4).requires_grad_()), (unit(4), unit(4))
    momentum_contrast(fast, slow, (unit(8), unit(8)), torch.eye(4, 12, dtype=torch.bool), scale, 0.5).backward()
    assert scale.grad.abs() > 0
    assert all((part.grad.abs().sum(1) > 0).all() for part in fast)


def test_hard_triples_hold_every_pair_and_its_rivals():
    ids = torch.tensor([1, 1, 2, 3])
    fast, slow = (unit(4), unit(4)), (unit(4), unit(4))
    seen = set()
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        picture, text, label = hard_triples(fast, slow, same_caption(ids), 3.0, generator)
        assert label.tolist() == [1] * 4 + [0] * 8
        assert picture[:8].tolist() == [0, 1, 2, 3] * 2
        assert text[:4].tolist() == text[8:].tolist() == [0, 1, 2, 3]
        assert torch.equal(ids[picture] == ids[text], label.bool())
        seen |= {(int(p), int(t)) for p, t in zip(picture[4:], text[4:])}
    assert len(seen) == 16 - 6  # all that do not fit


def test_hard_triples_prefer_what_is_similar():
    """At a great scale each picture meets the most similar text of another, and each text the most similar picture."""
    fast, slow = (unit(6), unit(6)), (unit(6), unit(6))
    picture, text, _ = hard_triples(fast, slow, torch.eye(6, dtype=torch.bool), 1e5, torch.Generator().manual_seed(0))
    assert torch.equal(text[6:12], (fast[0] @ slow[1].T).fill_diagonal_(-2).argmax(1))
    assert torch.equal(picture[12:], (fast[1] @ slow[0].T).fill_diagonal_(-2).argmax(1))


def test_one_caption_alone_has_no_rival():
    pair = unit(3), unit(3)
    with pytest.raises(ValueError, match="no negative exists"):
        hard_triples(pair, pair, torch.ones(3, 3, dtype=torch.bool), 1.0, torch.Generator())


def test_captions_that_fit_a_row():
    fits = fitting(torch.tensor([5, -1, 5, -1, 7]))
    assert fits.nonzero().tolist() == [[0, 0], [0, 2], [1, 1], [2, 0], [2, 2], [3, 3], [4, 4]]


def test_trust_in_the_average_rises_to_alpha_and_stays():
    assert [ramp(0.4, steps, 4) for steps in range(7)] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    assert [ramp(0.4, steps, 0) for steps in range(3)] == [0, 0.4, 0.4]
