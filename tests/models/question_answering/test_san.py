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
        u = ends[row]
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


def test_sizes_are_those_of_the_official_code():
    """``san_att_lstm_twolayer.py``: n_emb 500, n_dim 1024, n_attention 512, 14 × 14 cells, two hops."""
    with torch.device("meta"):
        system = SAN(SANConfig())
    assert system.question_encoder.words.embedding_dim == 500
    assert system.question_encoder.lstm.weight_hh_l0.shape == (4 * 1024, 1024)
    assert system.image_projection.weight.shape[0] == 1024
    assert [hop.question_projection.weight.shape for hop in system.hops] == [(512, 1024)] * 2
    assert system.answer_head.weight.shape == (1000, 1024)
    assert system.image_encoder.grid == (14, 14)


def test_dropout_is_before_the_answer_and_not_on_scores():
    torch.manual_seed(0)
    system, batch = SAN(dataclasses.replace(TINY, dropout=0.5)), pairs(4)
    inputs = batch["image"], batch["tokens"], batch["mask"]
    asked = []
    system.answer_head.register_forward_hook(lambda part, inputs, output: asked.append(inputs[0]))
    plain, dropped = system.eval()(*inputs), system.train()(*inputs)
    assert torch.equal(plain.maps, dropped.maps)
    close(asked[1][asked[1] != 0], 2 * asked[0][asked[1] != 0])
    assert 0.3 < (asked[1] == 0).float().mean() < 0.7


def test_without_a_look_it_is_refused():
    refused("hops is at least 1", SAN, dataclasses.replace(TINY, hops=0))
