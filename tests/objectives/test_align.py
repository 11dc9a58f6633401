"""Momentum contrast is InfoNCE where nothing waits and nobody teaches; hard pairs are wrong ones; distilled words."""

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close, refused

from mmlearn.objectives import info_nce, same_caption
from mmlearn.objectives.align import (
    distillation_ramp,
    hard_negative_pairs,
    masked_distillation,
    momentum_contrast,
    positive_pairs,
)


def unit(n, d=5):
    return F.normalize(torch.randn(n, d), dim=-1)


def test_without_queue_and_teacher_it_is_info_nce():
    fast = unit(6).requires_grad_(), unit(6).requires_grad_()
    none = torch.zeros(0, 5), torch.zeros(0, 5)
    for ids in (torch.arange(6), torch.tensor([1, 2, 1, 3, 3, 3])):
        positives = same_caption(ids)
        got, expected = (
            momentum_contrast(fast, fast, none, positives, 9.0, 0.0),
            info_nce(*fast, torch.tensor(9.0), positives),
        )
        close(got, expected)
        for one, two in zip(torch.autograd.grad(got, fast), torch.autograd.grad(expected, fast), strict=True):
            close(one, two)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_momentum_contrast_against_counting(alpha):
    fast, slow, queues = (tuple(unit(n) for _ in range(2)) for n in (3, 3, 4))
    positives = torch.rand(3, 7) < 0.3
    positives[:, :3] |= torch.eye(3, dtype=torch.bool)
    total = 0.0
    for here, there in ((0, 1), (1, 0)):
        candidates = [*slow[there], *queues[there]]
        for i in range(3):
            scores = torch.stack([7 * fast[here][i] @ other for other in candidates]).log_softmax(0)
            taught = torch.stack([7 * slow[here][i] @ other for other in candidates]).softmax(0)
            for j in range(7):
                target = alpha * taught[j] + (1 - alpha) * positives[i, j] / positives[i].sum()
                total -= float(target * scores[j]) / 6
    assert momentum_contrast(fast, slow, queues, positives, 7.0, alpha).item() == pytest.approx(total, abs=1e-5)


def test_the_mean_over_parts_of_the_rows_is_the_whole():
    """Of two processes each asks for its own rows; the momentum embeddings of both are candidates."""
    fast, slow, queues = (tuple(unit(n).double() for _ in range(2)) for n in (4, 4, 6))
    positives = torch.eye(4, 10, dtype=torch.bool)
    whole = momentum_contrast(fast, slow, queues, positives, 7.0, 0.4)
    parts = [
        momentum_contrast((fast[0][rows], fast[1][rows]), slow, queues, positives[rows], 7.0, 0.4, rows)
        for rows in (slice(0, 2), slice(2, 4))
    ]
    close(sum(parts) / 2, whole, 1e-12)
    assert torch.equal(positive_pairs(torch.tensor([3, -1, 3, -1]), slice(1, 3)), torch.tensor(
        [[False, True, False, False], [True, False, True, False]]
    ))  # fmt: skip


def test_the_temperature_learns_and_the_teacher_does_not():
    scale = torch.tensor(5.0, requires_grad=True)
    fast, slow = (unit(4).requires_grad_(), unit(4).requires_grad_()), (unit(4), unit(4))
    momentum_contrast(fast, slow, (unit(8), unit(8)), torch.eye(4, 12, dtype=torch.bool), scale, 0.5).backward()
    assert scale.grad.abs() > 0
    assert all((part.grad.abs().sum(1) > 0).all() for part in fast)


def test_hard_pairs_are_all_that_do_not_belong_together():
    ids = torch.tensor([1, 1, 2, 3])
    fast, slow = (unit(4), unit(4)), (unit(4), unit(4))
    seen = set()
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        image, text = hard_negative_pairs(fast, slow, same_caption(ids), 3.0, generator)
        assert image[:4].tolist() == text[4:].tolist() == [0, 1, 2, 3]
        assert (ids[image] != ids[text]).all()
        seen |= {(int(p), int(t)) for p, t in zip(image, text)}
    assert len(seen) == 16 - 6  # all that do not fit


def test_hard_pairs_prefer_what_is_similar():
    """At a great scale each picture meets the most similar text of another, and each text the most similar picture."""
    fast, slow = (unit(6), unit(6)), (unit(6), unit(6))
    image, text = hard_negative_pairs(fast, slow, torch.eye(6, dtype=torch.bool), 1e5, torch.Generator().manual_seed(0))
    assert torch.equal(text[:6], (fast[0] @ slow[1].T).fill_diagonal_(-2).argmax(1))
    assert torch.equal(image[6:], (fast[1] @ slow[0].T).fill_diagonal_(-2).argmax(1))


def test_one_caption_alone_has_no_rival():
    pair = unit(3), unit(3)
    refused(
        "no negative exists",
        hard_negative_pairs,
        pair,
        pair,
        torch.ones(3, 3, dtype=torch.bool),
        1.0,
        torch.Generator(),
    )


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_masked_distillation_against_counting(alpha):
    logits, teacher = torch.randn(3, 5, 7, requires_grad=True), torch.randn(3, 5, 7, requires_grad=True)
    label = torch.where(torch.rand(3, 5) < 0.5, torch.randint(7, (3, 5)), -100)
    label[0, 0] = 2
    log_p, taught = logits.log_softmax(-1), teacher.softmax(-1)
    terms = [
        -(1 - alpha) * log_p[i, j, label[i, j]] - alpha * sum(taught[i, j, w] * log_p[i, j, w] for w in range(7))
        for i in range(3)
        for j in range(5)
        if label[i, j] >= 0
    ]
    loss = masked_distillation(logits, label, teacher, alpha)
    assert loss.item() == pytest.approx(sum(terms).item() / len(terms), abs=1e-5)
    loss.backward()
    assert teacher.grad is None
    assert (logits.grad[label < 0] == 0).all()
    assert (logits.grad[label >= 0] != 0).all()


def test_without_masked_words_there_is_nothing_to_distil():
    logits = torch.randn(2, 3, 7, requires_grad=True)
    loss = masked_distillation(logits, torch.full((2, 3), -100), torch.randn(2, 3, 7), 0.4)
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_captions_that_fit_a_row():
    positives = positive_pairs(torch.tensor([5, -1, 5, -1, 7]))
    assert positives.nonzero().tolist() == [[0, 0], [0, 2], [1, 1], [2, 0], [2, 2], [3, 3], [4, 4]]


def test_trust_in_the_momentum_encoder_rises_to_alpha_and_stays():
    assert [distillation_ramp(0.4, steps, 4) for steps in range(7)] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    assert [distillation_ramp(0.4, steps, 0) for steps in range(3)] == [0, 0.4, 0.4]
