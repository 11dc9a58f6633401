"""ALBERT equals Transformers' AlbertModel and AlbertForPreTraining: tokens, heads, losses, gradients."""

import pytest
import torch
from published import TEXTS, text_inputs, to_guess
from testing_tools import close
from transformers import AlbertConfig, AlbertForPreTraining, AlbertModel

EMBEDDING = {"odd": 7, "relu": 50, "batch of one": 16}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", TEXTS)
def test_pretraining(case, padded, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, tokens, mask, token_type = text_inputs(AlbertConfig, case, embedding_size=EMBEDDING[case])
    mask = mask if padded else torch.ones_like(mask)
    published, ours = twins(AlbertForPreTraining(config))
    label = to_guess(tokens, mask)
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
    config, tokens, mask, _ = text_inputs(AlbertConfig, "odd", embedding_size=EMBEDDING["odd"])
    published, ours = twins(AlbertModel(config))
    expected, output = published(input_ids=tokens, attention_mask=mask.long()), ours(tokens, mask)
    close(output.tokens[mask], expected.last_hidden_state[mask])
    close(output.pooled, expected.pooler_output)
    assert output.token_logits is None
