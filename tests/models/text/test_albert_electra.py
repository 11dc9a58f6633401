"""ALBERT's blocks are one, its tables narrow; ELECTRA's halves share their words, and its draws go by the step."""

import dataclasses

import pytest
import torch
from testing_tools import count_parameters, refused, seeded

from mmlearn.layers import record_attention
from mmlearn.models.text.albert import ALBERT, ALBERTConfig
from mmlearn.models.text.electra import ELECTRA, ELECTRAConfig


def test_depth_costs_nothing():
    shallow, deep = (dataclasses.replace(ALBERTConfig.tiny(), depth=depth) for depth in (1, 9))
    assert count_parameters(ALBERT, shallow) == count_parameters(ALBERT, deep)
    tokens = torch.randint(4, 500, (2, 7), generator=seeded())
    model = ALBERT(deep)
    with record_attention(model) as maps:
        model(tokens)
    assert len(maps) == 9


def test_the_table_of_words_is_narrow():
    config = ALBERTConfig.tiny()
    model = ALBERT(dataclasses.replace(config, language_head=True))
    assert model.embedding.tokens.weight.shape == (512, 32)
    assert model(torch.full((1, 4), 5)).token_logits.shape == (1, 4, 512)


def test_heads_of_albert_are_built_where_asked():
    config = ALBERTConfig.tiny()
    output = ALBERT(dataclasses.replace(config, pooler=False))(torch.full((1, 4), 5))
    assert output.pooled is output.token_logits is output.order_logits is None
    refused("order_head reads the pooler", ALBERT, dataclasses.replace(config, pooler=False, order_head=True))
    batch = dict(tokens=torch.full((1, 4), 5))
    refused("no head to train", ALBERT(config).loss, batch)
    refused("at least one text", ALBERT(config).loss, dict(tokens=torch.zeros(0, 4, dtype=torch.long)))


def gaps():
    tokens = torch.randint(4, 500, (6, 20), generator=seeded())
    hidden = torch.rand(tokens.shape, generator=seeded(1)) < 0.3
    return dict(tokens=tokens.masked_fill(hidden, 3), token_label=tokens.masked_fill(~hidden, -100)), tokens, hidden


def test_only_gaps_are_filled_and_each_step_draws_anew():
    model, (batch, tokens, hidden) = ELECTRA(ELECTRAConfig.tiny()), gaps()
    texts = batch["tokens"], None, None, batch["token_label"]
    output = model(*texts)
    assert torch.equal(output.corrupted[~hidden], tokens[~hidden])
    assert torch.equal(output.replaced, output.corrupted != tokens)
    assert torch.equal(model(*texts).corrupted, output.corrupted)
    assert (output.corrupted != 0).all()  # nothing looks like padding
    model.after_step()
    assert not torch.equal(model(*texts).corrupted, output.corrupted)


def test_words_are_shared_and_learn_from_both_halves():
    model, (batch, _, _) = ELECTRA(ELECTRAConfig.tiny()), gaps()
    table = model.embedding.tokens.weight
    for name in ("mlm", "rtd"):
        (gradient,) = torch.autograd.grad(model.loss(batch)[name], table)
        assert gradient.any()
    heads = torch.autograd.grad(model.loss(batch)["rtd"], list(model.generator.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in heads)  # no gradient goes through a draw


@pytest.mark.parametrize("half", ["generator", "discriminator"])
def test_one_half_alone(half):
    config = dataclasses.replace(ELECTRAConfig.tiny(), generator=False, discriminator=False)
    refused("set generator=True, discriminator=True, or both", ELECTRA, config)
    model, (batch, tokens, hidden) = ELECTRA(dataclasses.replace(config, **{half: True})), gaps()
    output = model(tokens)
    assert (output.token_logits is None) == (half == "discriminator")
    assert (output.replaced_logits is None) == (output.tokens is None) == (half == "generator")
    losses = model.loss(batch | dict(replaced=hidden))
    assert losses.keys() == {"mlm" if half == "generator" else "rtd"}
    if half == "discriminator":
        refused("built without a generator", model.loss, batch)
