"""BERT with RoBERTa's and DistilBERT's settings equals Transformers' models: tokens, logits, loss, gradients."""

import pytest
import torch
from published import TEXTS, to_guess
from testing_tools import close
from transformers import (
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertModel,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
)

FIRST = 2  # positions of RoBERTa count from here


def inputs(case, family):
    case = dict(TEXTS[case])
    batch, length = case.pop("batch"), case.pop("max_position_embeddings")
    if family == "roberta":
        case.pop("hidden_act", None)  # not that of its head
        config = RobertaConfig(**case, max_position_embeddings=length + FIRST)
    else:
        case.pop("type_vocab_size", None)
        case.pop("layer_norm_eps", None)
        names = {"intermediate_size": "hidden_dim", "hidden_act": "activation"}
        config = DistilBertConfig(**{names.get(k, k): v for k, v in case.items()}, max_position_embeddings=length)
    tokens = torch.randint(2, case["vocab_size"], (batch, length))  # none is the pad token of either
    mask = torch.arange(length) <= torch.arange(batch)[:, None] + 2
    return config, tokens, mask


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", TEXTS)
@pytest.mark.parametrize("family", ["roberta", "distilbert"])
def test_masked_language_model(family, case, padded, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, tokens, mask = inputs(case, family)
    mask = mask if padded else torch.ones_like(mask)
    kind = RobertaForMaskedLM if family == "roberta" else DistilBertForMaskedLM
    if padded:
        tokens = tokens.masked_fill(~mask, config.pad_token_id)
    published, ours = twins(kind(config))
    label = to_guess(tokens, mask)
    expected = published(input_ids=tokens, attention_mask=mask.long(), labels=label)
    close(ours(tokens, mask).token_logits[mask], expected.logits[mask])
    batch = dict(tokens=tokens, token_label=label)
    loss = ours.loss(batch | dict(mask=mask) if padded else batch)["mlm"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("case", TEXTS)
def test_padding_between_words_has_no_position(case, masked, twins, assert_same_gradients):
    """RoBERTa counts what is no padding token, whether it is masked or not."""
    torch.manual_seed(1)
    config, tokens, _ = inputs(case, "roberta")
    tokens[:, 1::3] = config.pad_token_id
    mask = tokens != config.pad_token_id
    published, ours = twins(RobertaForMaskedLM(config))
    label = to_guess(tokens, mask)
    attended = mask if masked else torch.ones_like(mask)
    expected = published(input_ids=tokens, attention_mask=attended.long(), labels=label)
    close(ours(tokens, attended).token_logits[attended], expected.logits[attended])
    loss = ours.loss(dict(tokens=tokens, token_label=label, mask=attended))["mlm"]
    assert_same_gradients(published, ours, loss, expected.loss)


@pytest.mark.parametrize("family", ["roberta", "distilbert"])
def test_encoder_alone(family, twins):
    config, tokens, mask = inputs("odd", family)
    tokens = tokens.masked_fill(~mask, config.pad_token_id)
    published, ours = twins((RobertaModel if family == "roberta" else DistilBertModel)(config))
    expected, output = published(input_ids=tokens, attention_mask=mask.long()), ours(tokens, mask)
    close(output.tokens[mask], expected.last_hidden_state[mask])
    if family == "roberta":
        close(output.pooled, expected.pooler_output)
