"""SAN: each look against its equations, and what it finds goes into the next one."""

import dataclasses

import pytest
import torch
from testing_tools import close, pairs, refused, shaken

from mmlearn.models import SAN
from mmlearn.models.question_answering.san import AttentionHop, SANConfig

TINY = SANConfig.tiny()


def build(hops):
    torch.manual_seed(0)
    return shaken(SAN(dataclasses.replace(TINY, hops=hops))).eval()


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_against_the_equations_cell_by_cell(hops):
    system, batch = build(hops), pairs(4)
    output = system(batch["image"], batch["tokens"], batch["mask"])
    assert output.maps.shape == (4, hops, 16)
    cells, ends = system.image_encoder(batch["image"]), system.question_encoder(batch["tokens"], batch["mask"])[2]
    for row in range(4):
        v = [torch.tanh(system.image_projection.weight @ f + system.image_projection.bias) for f in cells[row]]
        u = ends[row, 0]
        for k, look in enumerate(system.hops):
            scores = [
                look.score.weight[0]
                @ torch.tanh(
                    look.image_projection.weight @ one
                    + look.question_projection.weight @ u
                    + look.question_projection.bias
                )
                for one in v
            ]
            shares = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
            close(output.maps[row, k], shares, 1e-4)
            u = u + sum(share * one for share, one in zip(shares, v))
        close(output.answer_logits[row], system.answer_head.weight @ u + system.answer_head.bias, 1e-4)


def test_a_look_by_hand():
    """One number each: question 0, cells 0 and 1; scores 0 and tanh(1), so that the second cell gets more."""
    look = AttentionHop(1, 1)
    with torch.no_grad():
        for weight, value in (
            (look.image_projection.weight, 1),
            (look.question_projection.weight, 1),
            (look.question_projection.bias, 0),
        ):
            weight.fill_(value)
        look.score.weight.fill_(1.0)
        u, p = look(torch.zeros(1, 1), torch.tensor([[[0.0], [1.0]]]))
    close(p, torch.tensor([[0.318300, 0.681700]]), 1e-4)
    close(u, torch.tensor([[0.681700]]), 1e-4)


def test_a_later_look_does_not_change_an_earlier_one():
    system, batch = build(3), pairs(4)
    before = system(batch["image"], batch["tokens"], batch["mask"]).maps
    with torch.no_grad():
        system.hops[2].score.weight.neg_()
    after = system(batch["image"], batch["tokens"], batch["mask"]).maps
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.allclose(before[:, 2], after[:, 2])
    close(after.sum(-1), torch.ones(4, 3))


def test_without_a_look_it_is_refused():
    refused("hops is at least 1", SAN, dataclasses.replace(TINY, hops=0))
