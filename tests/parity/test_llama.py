"""Llama equals Transformers' Llama, Mistral and Qwen2: states, logits, loss, gradients, and what is written."""

import pytest
import torch
from published import sizes
from testing_tools import close
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

LLAMA, MISTRAL, QWEN2 = (
    (LlamaConfig, LlamaForCausalLM),
    (MistralConfig, MistralForCausalLM),
    (Qwen2Config, Qwen2ForCausalLM),
)
LINEAR = dict(rope_type="linear", rope_theta=500.0, factor=3.0)
LLAMA3 = dict(rope_type="llama3", rope_theta=40.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0)
LLAMA3 |= dict(original_max_position_embeddings=16)  # of four pairs one stays, one is slowed down, two are in between
CASES = {
    "tied, groups of 3": (LLAMA, sizes(24, 2, 6, 50, num_key_value_heads=2, tie_word_embeddings=True), 3),
    "a head of its own, no groups": (LLAMA, sizes(40, 3, 5, 33, rms_norm_eps=1e-4), 4),
    "one key head, wide heads": (LLAMA, sizes(16, 1, 2, 24, num_key_value_heads=1, head_dim=12), 1),
    "linear": (LLAMA, sizes(32, 2, 2, 40, rope_parameters=LINEAR), 3),
    "llama3": (LLAMA, sizes(16, 2, 2, 40, num_key_value_heads=1, rope_parameters=LLAMA3), 3),
    "mistral": (MISTRAL, sizes(24, 2, 6, 50, num_key_value_heads=3, sliding_window=4), 3),
    "mistral without a window": (MISTRAL, sizes(24, 2, 6, 50, num_key_value_heads=3, sliding_window=None), 2),
    "qwen2": (QWEN2, sizes(24, 2, 6, 50, num_key_value_heads=2, tie_word_embeddings=True), 3),
}
COMMON = dict(vocab_size=99, max_position_embeddings=24, bos_token_id=1, eos_token_id=2)


def inputs(case):
    (config, build), settings, batch = CASES[case]
    tokens = torch.randint(99, (batch, 13), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(13) <= torch.arange(batch)[:, None] * 3 + 5
    return build(config(**COMMON | settings)), tokens, mask


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_language_model(case, padded, twins, assert_same_gradients):
    torch.manual_seed(1)
    published, tokens, mask = inputs(case)
    mask = mask if padded else torch.ones_like(mask)
    published, ours = twins(published)
    label = tokens.masked_fill(~mask, -100)
    expected = published(input_ids=tokens, attention_mask=mask.long(), labels=label, output_hidden_states=True)
    found = ours(tokens, mask if padded else None)
    close(found.tokens[mask], expected.hidden_states[-1][mask])
    close(found.token_logits[mask], expected.logits[mask])
    loss = ours.loss(dict(tokens=tokens) | (dict(mask=mask) if padded else {}))["lm"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


def loud(model):
    """With larger weights, so that texts differ and end."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(1 if "norm" in name else 20)
    return model


@pytest.mark.parametrize("case", CASES)
def test_it_writes_the_same_tokens(case, twins):
    torch.manual_seed(1)
    published, ours = twins(loud(inputs(case)[0]))
    prompt = torch.randint(3, 99, (3, 5))
    mask = torch.arange(5) >= torch.tensor([0, 2, 4])[:, None]  # padded at the left
    begun, real = prompt, mask
    if ours.config.start_token is not None:
        begun, real = torch.cat([torch.ones(3, 1).long(), prompt], 1), torch.cat([mask.new_ones(3, 1), mask], 1)
        row, column = torch.arange(3), (~mask).sum(1)
        begun[row, column], real = 1, torch.arange(6) >= column[:, None]
    expected = published.generate(
        begun, attention_mask=real.long(), max_length=begun.shape[1] + 15, do_sample=False, pad_token_id=2
    )
    written = ours.generate(prompt, prompt_mask=mask, max_length=20)
    assert torch.equal(written[:, 5:], expected[:, begun.shape[1] :])
    assert len(set(written[:, 5:].flatten().tolist())) > 3
