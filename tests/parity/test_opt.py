"""OPT equals Transformers' OPTForCausalLM and OPTModel: tokens, logits, loss, gradients, and what it writes."""

import pytest
import torch
from testing_tools import close
from transformers import OPTConfig, OPTForCausalLM, OPTModel

CASES = {
    "odd": dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, ffn_dim=50, vocab_size=99, batch=3),
    "as 350m": dict(
        hidden_size=40, num_hidden_layers=3, num_attention_heads=5, ffn_dim=33, vocab_size=64, batch=4,
        word_embed_proj_dim=12, do_layer_norm_before=False,
    ),
    "narrow table, batch of one": dict(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=1, ffn_dim=24, vocab_size=50, batch=1,
        word_embed_proj_dim=6, activation_function="gelu",
    ),
}  # fmt: skip
LENGTH = 11


def inputs(case):
    case = dict(CASES[case])
    batch = case.pop("batch")
    tokens = torch.randint(3, case["vocab_size"], (batch, LENGTH))
    mask = torch.arange(LENGTH) <= torch.arange(batch)[:, None] + 2
    return OPTConfig(**case, max_position_embeddings=LENGTH), tokens, mask


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_language_model(case, padded, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, tokens, mask = inputs(case)
    mask = mask if padded else torch.ones_like(mask)
    published, ours = twins(OPTForCausalLM(config))
    label = tokens.masked_fill(~mask, -100)
    expected = published(input_ids=tokens, attention_mask=mask.long(), labels=label)
    close(ours(tokens, mask).token_logits[mask], expected.logits[mask])
    batch = dict(tokens=tokens)
    loss = ours.loss(batch | dict(mask=mask) if padded else batch)["lm"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


def test_without_a_head(twins):
    config, tokens, mask = inputs("odd")
    published, ours = twins(OPTModel(config))
    expected = published(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
    close(ours(tokens, mask).tokens[mask], expected[mask])


@pytest.mark.parametrize("case", ["odd", "as 350m"])
def test_texts_are_written_as_published(case, twins):
    """Prompts of unequal length, sharpened, so that texts differ."""
    torch.manual_seed(2)
    config, tokens, _ = inputs(case)
    published = OPTForCausalLM(config)
    with torch.no_grad():
        for name, parameter in published.named_parameters():
            if "norm" not in name:
                parameter.mul_(6)
    published, ours = twins(published)
    b = len(tokens)
    prompt, mask = tokens[:, :4], torch.arange(4) >= torch.arange(b)[:, None] - 1
    start, real = torch.cat([torch.full((b, 1), 2), prompt], 1), torch.cat([mask.new_zeros(b, 1), mask], 1)
    first = (~real).sum(1) - 1
    start[torch.arange(b), first], real[torch.arange(b), first] = 2, True
    expected = published.generate(
        start.masked_fill(~real, 1), attention_mask=real.long(), max_length=LENGTH, do_sample=False
    )
    got = ours.generate(prompt.masked_fill(~mask, 1), prompt_mask=mask, max_length=LENGTH - 1)
    assert torch.equal(got[:, 4:], expected[:, 5:])
    assert len(got[:, 4:].unique(dim=0)) > 1
