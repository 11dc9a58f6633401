"""BERT: padding never leaks, the loss is at masked tokens only, gaps are learned, sizes are the published ones."""

import dataclasses
import math

import pytest
import torch
from testing_tools import assert_rows_are_independent, close, count_parameters, mean_loss, other_padding, overfit, pairs

from mmlearn.models.text.bert import BERT, BERTConfig

TINY = BERTConfig.tiny()
HEADS = dataclasses.replace(TINY, language_head=True, next_sentence_head=True)


def gaps(b=8, seed=0):
    """Texts of which every third token is to be guessed, and second sentences that follow or do not."""
    batch = pairs(b, seed=seed)
    guess = (torch.arange(12) % 3 == 1) & batch["mask"]
    return {
        "tokens": batch["tokens"].masked_fill(guess, 2),
        "mask": batch["mask"],
        "token_type": (torch.arange(12) > 4).long().expand(b, 12),
        "token_label": torch.where(guess, batch["tokens"], -100),
        "next_label": torch.arange(b) % 2,
    }


def test_padding_changes_nothing_that_is_real():
    model, batch = BERT(HEADS), pairs()
    changed, mask = other_padding(batch), batch["mask"]
    output, other = model(batch["tokens"], mask), model(changed, mask)
    assert torch.equal(output.tokens[mask], other.tokens[mask])
    assert torch.equal(output.token_logits[mask], other.token_logits[mask])
    assert torch.equal(output.pooled, other.pooled)
    assert torch.equal(output.next_logits, other.next_logits)
    longer = torch.nn.functional.pad(batch["tokens"], (0, 9), value=44)
    close(model(longer, torch.nn.functional.pad(mask, (0, 9))).pooled, output.pooled)
    assert not torch.allclose(model(changed).pooled, model(batch["tokens"]).pooled, atol=1e-3)


def test_every_token_reads_both_ways():
    model, tokens = BERT(TINY), pairs()["tokens"][:1]
    before = model(tokens).tokens
    for position in (0, 5, 11):
        changed = tokens.clone()
        changed[0, position] = 2
        assert ((model(changed).tokens - before).abs().amax(-1) > 1e-4).all()


def test_rows_do_not_depend_on_each_other():
    model, batch = BERT(TINY), pairs()
    assert_rows_are_independent(lambda *rows: model(*rows).pooled, batch["tokens"], batch["mask"])


def test_sentences_are_told_apart_and_one_is_the_default():
    model, tokens = BERT(TINY), pairs()["tokens"]
    first = torch.zeros_like(tokens)
    assert torch.equal(model(tokens).tokens, model(tokens, None, first).tokens)
    assert not torch.allclose(model(tokens).tokens, model(tokens, None, first + 1).tokens, atol=1e-3)


def test_losses_start_at_ln_v_and_ln_2():
    """Logits of 64 features and a table of spread 0.02 spread by 0.16, which adds 0.013 to ln v."""
    heads = dict(language_head=True)
    assert mean_loss(lambda: BERT(dataclasses.replace(TINY, **heads)), gaps) == pytest.approx(math.log(512), abs=0.05)
    heads = dict(next_sentence_head=True)
    assert mean_loss(lambda: BERT(dataclasses.replace(TINY, **heads)), gaps) == pytest.approx(math.log(2), abs=0.05)


def test_loss_is_the_mean_over_masked_tokens_only():
    model, batch = BERT(HEADS), gaps()
    output = model(batch["tokens"], batch["mask"], batch["token_type"])
    log_probability = output.token_logits.log_softmax(-1)
    terms = [
        -log_probability[b, t, label].item()
        for b, row in enumerate(batch["token_label"].tolist())
        for t, label in enumerate(row)
        if label != -100
    ]
    losses = model.loss(batch)
    assert losses["mlm"].item() == pytest.approx(sum(terms) / len(terms), abs=1e-5)
    verdict = output.next_logits.log_softmax(-1)
    expected = -sum(verdict[b, b % 2].item() for b in range(8)) / 8
    assert losses["nsp"].item() == pytest.approx(expected, abs=1e-5)
    (gradient,) = torch.autograd.grad(model.loss(batch)["mlm"], model.language_head.bias, retain_graph=True)
    logits = output.token_logits.detach().requires_grad_()
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["token_label"].flatten())
    (by_token,) = torch.autograd.grad(loss, logits)
    assert (by_token[batch["token_label"] == -100] == 0).all()
    close(gradient, by_token.sum((0, 1)))


def test_a_batch_without_masked_tokens_costs_nothing():
    model, batch = BERT(HEADS), gaps()
    loss = model.loss(batch | {"token_label": torch.full_like(batch["tokens"], -100)})["mlm"]
    loss.backward()
    assert loss.item() == 0
    assert (model.language_head.bias.grad == 0).all()


def test_one_batch_is_learned_by_heart():
    model, batch = BERT(HEADS), gaps()
    assert overfit(model, batch, steps=120, learning_rate=3e-3) < 0.05
    guess = model(batch["tokens"], batch["mask"], batch["token_type"]).token_logits.argmax(-1)
    masked = batch["token_label"] != -100
    assert torch.equal(guess[masked], batch["token_label"][masked])


def test_input_and_output_share_their_vectors():
    model, batch = BERT(HEADS), gaps()
    hidden = model(batch["tokens"]).tokens
    head, table = model.language_head, model.embedding.tokens.weight
    features = head.norm(torch.nn.functional.gelu(head.dense(hidden)))
    close(model(batch["tokens"]).token_logits, features @ table.T + head.bias)


def test_the_pad_token_learns_nothing_by_being_looked_up():
    model, batch = BERT(TINY), pairs()
    model(batch["tokens"]).tokens.square().sum().backward()
    gradient = model.embedding.tokens.weight.grad
    assert (batch["tokens"] == 0).any()
    assert (gradient[0] == 0).all()
    assert (gradient[batch["tokens"].unique()[1:]] != 0).any(-1).all()


def test_heads_are_built_where_asked():
    output = BERT(dataclasses.replace(TINY, pooler=False))(pairs()["tokens"])
    assert output.pooled is output.token_logits is output.next_logits is None
    with pytest.raises(ValueError, match="no head to train: set language_head"):
        BERT(TINY).loss(gaps())
    with pytest.raises(ValueError, match="next_sentence_head reads the pooler"):
        BERT(dataclasses.replace(TINY, pooler=False, next_sentence_head=True))


def test_dropout_acts_in_training_only():
    model, tokens = BERT(dataclasses.replace(TINY, dropout=0.5)), pairs()["tokens"]
    assert not torch.equal(model(tokens).tokens, model(tokens).tokens)
    model.eval()
    assert torch.equal(model(tokens).tokens, model(tokens).tokens)


@pytest.mark.parametrize(("preset", "count"), [("base", 109_482_240), ("large", 335_141_888)])
def test_presets_have_the_published_size(preset, count):
    assert count_parameters(BERT, BERTConfig.preset(preset)) == count


def test_unknown_preset():
    with pytest.raises(ValueError, match=r"no preset 'small'; choose from tiny, base, large"):
        BERTConfig.preset("small")
