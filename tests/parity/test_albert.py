"""ALBERT equals Transformers' AlbertModel and AlbertForPreTraining: tokens, heads, losses, gradients."""

import pytest
import torch
from published import TEXTS
from testing_tools import close
from transformers import AlbertConfig, AlbertForPreTraining, AlbertModel

EMBEDDING = {"odd": 7, "relu": 50, "batch of one": 16}


def inputs(case):
    sizes = dict(TEXTS[case])
    batch, length = sizes.pop("batch"), sizes["max_position_embeddings"]
    tokens = torch.randint(sizes["vocab_size"], (batch, length))
    mask = torch.arange(length) <= torch.arange(batch)[:, None] + 2
    token_type = torch.randint(2, (batch, length))
    return AlbertConfig(**sizes, embedding_size=EMBEDDING[case]), tokens, mask, token_type


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", TEXTS)
def test_pretraining(case, padded, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, tokens, mask, token_type = inputs(case)
    mask = mask if padded else torch.ones_like(mask)
    published, ours = twins(AlbertForPreTraining(config))
    label = torch.where((torch.rand(tokens.shape) < 0.4) & mask, tokens, -100)
    label[0, 0] = tokens[0, 0]
    order = torch.randint(2, (len(tokens),))
    given = dict(input_ids=tokens, attention_mask=mask.long(), token_type_ids=token_type.masked_fill(~mask, 0))
    expected = published(**given, labels=label, sentence_order_label=order)
    output = ours(tokens, mask, token_type)
    close(output.token_logits[mask], expected.prediction_logits[mask])
    close(output.order_logits, expected.sop_logits)
    batch = dict(tokens=tokens, token_type=token_type, token_label=label, order_label=order)
    losses = ours.loss(batch | dict(mask=mask) if padded else batch)
    loss = losses["mlm"] + losses["sop"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


def test_encoder_alone(twins):
    config, tokens, mask, _ = inputs("odd")
    published, ours = twins(AlbertModel(config))
    expected, output = published(input_ids=tokens, attention_mask=mask.long()), ours(tokens, mask)
    close(output.tokens[mask], expected.last_hidden_state[mask])
    close(output.pooled, expected.pooler_output)
    assert output.token_logits is None
