"""BERT: losses start where they should, gaps are learned, and heads are built where asked."""

import dataclasses
import math

import batches
import pytest
import torch
from testing_tools import mean_loss, overfit, pairs, refused

from mmlearn.data import load
from mmlearn.data.collate import Collate
from mmlearn.data.fields import MaskedTokens, NextSegment, Segments, resize
from mmlearn.layers import Config
from mmlearn.models.text.bert import BERT, BERTConfig

TINY = BERTConfig.tiny()
HEADS = dataclasses.replace(TINY, language_head=True, next_sentence_head=True)


def gaps(b=8, seed=0):
    """Texts of which every third token is to be guessed, and second sentences that follow or do not."""
    batch = batches.gaps(b, seed) | {"token_type": (torch.arange(12) > 4).long().expand(b, 12)}
    del batch["image"]
    return batch | {"next_label": torch.arange(b) % 2}


def test_the_next_sentence_starts_at_ln_2():
    heads = dict(next_sentence_head=True)
    assert mean_loss(lambda: BERT(dataclasses.replace(TINY, **heads)), gaps) == pytest.approx(math.log(2), abs=0.05)


def test_a_batch_without_masked_tokens_costs_nothing():
    model, batch = BERT(HEADS), gaps()
    loss = model.loss(batch | {"token_label": torch.full_like(batch["tokens"], -100)})["mlm"]
    loss.backward()
    assert loss.item() == 0
    assert (model.language_head.bias.grad == 0).all()


def test_heads_are_built_where_asked():
    output = BERT(dataclasses.replace(TINY, pooler=False))(pairs()["tokens"])
    assert output.pooled is output.token_logits is output.next_logits is None
    refused("no head to train: set language_head", BERT(TINY).loss, gaps())
    with pytest.raises(ValueError, match="next_sentence_head reads the pooler"):
        BERT(dataclasses.replace(TINY, pooler=False, next_sentence_head=True))


def test_next_sentences_are_learned_from_captions():
    """As chapters put it together: segments, some of which are another row's, and gaps in them."""
    data = load("texts", "val", sources=["walks"], scenes=80)
    pairs = Segments(vocab_size=300).fitted(data, Config(), 0)
    batch = Collate((pairs,), (NextSegment(), MaskedTokens()), seed=1)([data[i] for i in range(8)])
    config = resize(HEADS, pairs.sizes())
    torch.manual_seed(0)
    model = BERT(config)
    start = model.loss(batch)
    assert start["nsp"].item() == pytest.approx(math.log(2), abs=0.3)
    assert overfit(model, batch, steps=80, learning_rate=3e-3) < 0.3 * (start["nsp"] + start["mlm"]).item()
    assert torch.equal(
        model(batch["tokens"], batch["mask"], batch["token_type"]).next_logits.argmax(-1), batch["next_label"]
    )


def test_positions_may_count_from_elsewhere():
    """As in RoBERTa: the rows before are for nothing."""
    moved, plain = BERT(dataclasses.replace(TINY, first_position=2)), BERT(TINY)
    state = {name: value[2:] if name == "embedding.positions" else value for name, value in moved.state_dict().items()}
    plain.load_state_dict(state)
    tokens = torch.randint(4, 500, (2, 32))
    assert torch.equal(moved(tokens).tokens, plain(tokens).tokens)
    with pytest.raises(ValueError, match="33 tokens are more than the 32 positions"):
        moved(torch.randint(4, 500, (2, 33)))
