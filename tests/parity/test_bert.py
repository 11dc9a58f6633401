"""BERT equals Transformers' BertModel and BertForPreTraining: tokens, heads, losses, gradients."""

import pytest
import torch
from published import TEXTS
from testing_tools import close
from transformers import BertConfig, BertForMaskedLM, BertForPreTraining, BertModel

CASES = TEXTS


def inputs(case):
    case = dict(CASES[case])
    batch, length = case.pop("batch"), case["max_position_embeddings"]
    tokens = torch.randint(case["vocab_size"], (batch, length))
    mask = torch.arange(length) <= torch.arange(batch)[:, None] + 2
    token_type = torch.randint(2, (batch, length))
    return BertConfig(**case), tokens, mask, token_type


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_pretraining(case, padded, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, tokens, mask, token_type = inputs(case)
    mask = mask if padded else torch.ones_like(mask)
    published, ours = twins(BertForPreTraining(config))
    label = torch.where((torch.rand(tokens.shape) < 0.4) & mask, tokens, -100)
    label[0, 0] = tokens[0, 0]
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
    config, tokens, mask, _ = inputs("odd")
    published, ours = twins(BertModel(config))
    expected, output = published(input_ids=tokens, attention_mask=mask.long()), ours(tokens, mask)
    close(output.tokens[mask], expected.last_hidden_state[mask])
    close(output.pooled, expected.pooler_output)
    assert output.token_logits is None


def test_masked_language_model(twins):
    config, tokens, mask, _ = inputs("odd")
    published, ours = twins(BertForMaskedLM(config))
    expected = published(input_ids=tokens, attention_mask=mask.long()).logits
    close(ours(tokens, mask).token_logits[mask], expected[mask])
