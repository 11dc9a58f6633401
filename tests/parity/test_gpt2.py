"""GPT-2 equals Transformers' GPT2Model and GPT2LMHeadModel: tokens, logits, loss, gradients."""

import pytest
import torch
from testing_tools import close
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

CASES = {
    "odd": dict(n_embd=24, n_layer=2, n_head=3, n_inner=50, vocab_size=99, n_positions=11, batch=3),
    "relu": dict(n_embd=40, n_layer=3, n_head=5, vocab_size=64, n_positions=16, batch=4, activation_function="relu"),
    "batch of one": dict(
        n_embd=16, n_layer=1, n_head=1, n_inner=24, vocab_size=50, n_positions=6, batch=1, layer_norm_epsilon=1e-4
    ),
}


def inputs(case):
    case = dict(CASES[case])
    batch, length = case.pop("batch"), case["n_positions"]
    tokens = torch.randint(case["vocab_size"], (batch, length))
    mask = torch.arange(length) <= torch.arange(batch)[:, None] + 2
    return GPT2Config(**case, bos_token_id=1, eos_token_id=2), tokens, mask


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_language_model(case, padded, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, tokens, mask = inputs(case)
    mask = mask if padded else torch.ones_like(mask)
    published, ours = twins(GPT2LMHeadModel(config))
    label = tokens.masked_fill(~mask, -100)
    expected = published(input_ids=tokens, attention_mask=mask.long(), labels=label)
    close(ours(tokens, mask).token_logits[mask], expected.logits[mask])
    batch = dict(tokens=tokens)
    loss = ours.loss(batch | dict(mask=mask) if padded else batch)["lm"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


def test_without_a_head(twins):
    config, tokens, mask = inputs("odd")
    published, ours = twins(GPT2Model(config))
    expected = published(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
    close(ours(tokens, mask).tokens[mask], expected[mask])
