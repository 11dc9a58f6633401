"""BERT equals Transformers' BertModel and BertForPreTraining: tokens, heads, losses, gradients."""

import pytest
import torch
from published import TEXTS, text_inputs, to_guess
from testing_tools import close
from transformers import BertConfig, BertForMaskedLM, BertForPreTraining, BertModel


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", TEXTS)
def test_pretraining(case, padded, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, tokens, mask, token_type = text_inputs(BertConfig, case)
    mask = mask if padded else torch.ones_like(mask)
    published, ours = twins(BertForPreTraining(config))
    label = to_guess(tokens, mask)
    next_label = torch.randint(2, (len(tokens),))
    expected = published(
        input_ids=tokens,
        attention_mask=mask.long(),
        token_type_ids=token_type,
        labels=label,
        next_sentence_label=next_label,
    )
    output = ours(tokens, mask, token_type)
    close(output.token_logits[mask], expected.prediction_logits[mask])
    close(output.next_logits, expected.seq_relationship_logits)
    batch = dict(tokens=tokens, token_type=token_type, token_label=label, next_label=next_label)
    losses = ours.loss(batch | dict(mask=mask) if padded else batch)
    loss = losses["mlm"] + losses["nsp"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


def test_encoder_alone(twins):
    config, tokens, mask, _ = text_inputs(BertConfig, "odd")
    published, ours = twins(BertModel(config))
    expected, output = published(input_ids=tokens, attention_mask=mask.long()), ours(tokens, mask)
    close(output.tokens[mask], expected.last_hidden_state[mask])
    close(output.pooled, expected.pooler_output)
    assert output.token_logits is None


def test_masked_language_model(twins):
    config, tokens, mask, _ = text_inputs(BertConfig, "odd")
    published, ours = twins(BertForMaskedLM(config))
    expected = published(input_ids=tokens, attention_mask=mask.long()).logits
    close(ours(tokens, mask).token_logits[mask], expected[mask])
