"""Heads: the published classifier, losses against sums by hand, labels that cannot be."""

import math

import pytest
import torch
from testing_tools import close, refused
from torch import nn
from transformers import LxmertConfig
from transformers.models.lxmert.modeling_lxmert import LxmertVisualAnswerHead

from mmlearn.models.fusion.heads import EntailmentHead, NLVRHead, ReferringHead, VQAHead


def states(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("width", "answers", "b"), [(12, 7, 1), (64, 28, 5), (30, 1, 3)])
def test_the_answer_head_is_lxmerts(width, answers, b):
    theirs = LxmertVisualAnswerHead(LxmertConfig(hidden_size=width), answers)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.5)
    ours = VQAHead(width, answers)
    ours.classifier.load_state_dict(theirs.logit_fc.state_dict())
    x = states(b, width)
    close(ours(x), theirs(x), 1e-6)
    gradients = [torch.autograd.grad(head(x).square().sum(), list(head.parameters())) for head in (ours, theirs)]
    for got, expected in zip(*gradients):
        close(got, expected)


@pytest.mark.parametrize(
    ("head", "shape", "outputs"),
    [(VQAHead(64, 28), (600, 64), 28), (EntailmentHead(64), (600, 64), 3), (NLVRHead(64), (600, 2, 64), 2)],
)
def test_heads_start_at_the_log_of_what_there_is_to_choose_from(head, shape, outputs):
    logits = head(states(*shape))
    assert logits.shape == (600, outputs)
    assert head.classifier[0].out_features == 128
    assert head.loss(logits, torch.arange(600) % outputs).item() == pytest.approx(math.log(outputs), abs=0.1)
    assert head.classifier[0].bias.abs().max() == 0


# Answers.


def test_one_right_answer_is_learned_by_cross_entropy():
    head = VQAHead(8, 5)
    logits, answer = states(4, 5), torch.tensor([0, 4, 2, 2])
    shares = logits.double().exp() / logits.double().exp().sum(1, keepdim=True)
    expected = -sum(math.log(shares[i, a]) for i, a in enumerate(answer.tolist())) / 4
    assert head.loss(logits, answer).item() == pytest.approx(expected, abs=1e-6)
    asked = torch.cat([answer, torch.tensor([-100])])
    assert head.loss(torch.cat([logits, states(1, 5)]), asked).item() == pytest.approx(expected, abs=1e-6)


def test_soft_answers_are_a_yes_or_no_each():
    head, logits, scores = VQAHead(8, 5), states(3, 5), torch.rand(3, 5)
    scores[0, 1], scores[1, 2] = 1, 0
    total = 0.0
    for row, target in zip(logits.tolist(), scores.tolist()):
        for z, s in zip(row, target):
            yes = 1 / (1 + math.exp(-z))
            total -= s * math.log(yes) + (1 - s) * math.log(1 - yes)
    assert head.loss(logits, scores).item() == pytest.approx(total / 3, rel=1e-5)
    assert head.loss(torch.zeros(3, 5), scores).item() == pytest.approx(5 * math.log(2), rel=1e-5)
    sure = torch.where(scores > 0.5, 100.0, -100.0)
    assert head.loss(sure, (scores > 0.5).float()).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("label", "says"),
    [
        (torch.tensor([0, 1, 5]), r"^Labels are 0 to 4 here, .*; got 5\.$"),
        (torch.tensor([0, -1, 1]), r"Labels are 0 to 4 .*; got -1"),
        (torch.tensor([0, 1]), r"^batch\['answer'\] is int64 \(3,\), .*got torch.int64 \(2,\)"),
        (torch.zeros(3, 5, dtype=torch.long), r"got torch.int64 \(3, 5\)"),
        (torch.tensor([True, False, True]), r"got torch.bool"),
        (torch.rand(3, 4), r"^Soft answers are \(b, answers\) = \(3, 5\).*got \(3, 4\)"),
        (torch.rand(3), r"got \(3,\)\. One right answer each is int64"),
        (torch.full((3, 5), 1.1), "A soft score is from 0 to 1"),
        (torch.full((3, 5), -0.1), "A soft score is from 0 to 1"),
        (torch.full((3, 5), math.nan), "A soft score is from 0 to 1"),
    ],
)
def test_answers_that_cannot_be(label, says):
    refused(says, VQAHead(8, 5).loss, torch.zeros(3, 5), label)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("head", "outputs"), [(NLVRHead(8), 2), (EntailmentHead(8), 3)])
def test_verdicts_that_cannot_be(head, outputs):
    logits = torch.zeros(2, outputs)
    refused(rf"Labels are 0 to {outputs - 1} here, .*; got {outputs}", head.loss, logits, torch.tensor([0, outputs]))
    refused(r"got torch.float32 \(2,\)", head.loss, logits, torch.rand(2))


# Two pictures.


def test_the_order_of_two_images_counts():
    head, pooled = NLVRHead(8), states(4, 2, 8)
    assert not torch.allclose(head(pooled), head(pooled.flip(1)))
    joined = torch.cat([pooled[:, 0], pooled[:, 1]], 1)
    close(head(pooled), head.classifier(joined), 0)


# Regions.


def test_scores_are_those_of_each_region_alone():
    head, x = ReferringHead(6), states(3, 5, 6)
    mask = torch.arange(5) < torch.tensor([5, 1, 3])[:, None]
    logits = head(x, mask)
    for i in range(3):
        for j in range(5):
            expected = (x[i, j] @ head.score.weight[0] + head.score.bias[0]).item() if mask[i, j] else -math.inf
            assert logits[i, j].item() == pytest.approx(expected, abs=1e-6)
    order = torch.randperm(5)
    close(head(x[:, order], mask[:, order]), logits[:, order])
    close(head(x), head(x, torch.ones_like(mask)), 0)
    assert ((logits.softmax(-1) > 0) == mask).all()


def test_padding_changes_neither_loss_nor_gradient():
    head, x, mask = ReferringHead(6), states(3, 5, 6), torch.arange(5) < torch.tensor([5, 1, 3])[:, None]
    label = torch.tensor([4, 0, 2])

    def result(x, mask):
        loss = head.loss(head(x, mask), label)
        return loss, *torch.autograd.grad(loss, list(head.parameters()))

    expected = result(x, mask)
    assert all(value.isfinite().all() for value in expected)
    for got, value in zip(result(torch.where(mask[..., None], x, 1e4), mask), expected):
        assert torch.equal(got, value)
    longer = nn.functional.pad(x, (0, 0, 0, 3), value=9.0), nn.functional.pad(mask, (0, 3))
    for got, value in zip(result(*longer), expected):
        close(got, value)
    by_hand = [
        -head(x[i : i + 1, : int(mask[i].sum())])[0].log_softmax(0)[label[i]].item() for i in range(3)
    ]  # each alone, without its padding
    assert expected[0].item() == pytest.approx(sum(by_hand) / 3, abs=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_regions_that_cannot_be_meant():
    head, mask = ReferringHead(6), torch.tensor([[True, True, False], [True, False, False]])
    logits = head(states(2, 3, 6), mask)
    with pytest.raises(ValueError, match=r"^Expression 1 refers to region 2, which region_mask says is padding\.$"):
        head.loss(logits, torch.tensor([1, 2]))
    refused(r"Labels are 0 to 2 here, .*; got 3", head.loss, logits, torch.tensor([1, 3]))
    refused(r"batch\['referred'\] is int64 \(2,\)", head.loss, logits, torch.tensor([[1], [0]]))
    mask[1] = False
    with pytest.raises(ValueError, match=r"^Expression 1 refers to region 0, which region_mask says is padding\.$"):
        head.loss(head(states(2, 3, 6), mask), torch.tensor([0, 0]))
