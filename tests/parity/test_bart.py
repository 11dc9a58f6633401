"""BART equals Transformers' BartModel and BartForConditionalGeneration: states, logits, loss, gradients."""

import pytest
import torch
from published import two_texts
from testing_tools import close
from transformers import BartConfig, BartForConditionalGeneration, BartModel

CASES = {
    "odd": dict(d_model=24, layers=(2, 2), heads=3, mlp=50, vocab_size=99, max_position_embeddings=11, batch=3),
    "relu": dict(d_model=40, layers=(3, 1), heads=5, mlp=33, vocab_size=64, max_position_embeddings=16, batch=4)
    | dict(activation_function="relu"),
    "batch of one": dict(d_model=16, layers=(1, 2), heads=1, mlp=24, vocab_size=50, max_position_embeddings=7, batch=1)
    | dict(decoder_start_token_id=3, pad_token_id=0),
}


def inputs(case):
    """A configuration, texts, and targets of other lengths."""
    case = dict(CASES[case])
    batch, length = case.pop("batch"), case["max_position_embeddings"]
    layers, heads, mlp = (case.pop(name) for name in ("layers", "heads", "mlp"))
    stacks = zip(("encoder", "decoder"), layers)
    sizes = [{f"{one}_layers": n, f"{one}_attention_heads": heads, f"{one}_ffn_dim": mlp} for one, n in stacks]
    config = BartConfig(**case, **sizes[0], **sizes[1])
    return config, *two_texts(case["vocab_size"], batch, length)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_writing(case, padded, assert_written_alike):
    torch.manual_seed(1)
    config, *texts = inputs(case)
    published = BartForConditionalGeneration(config)
    published.final_logits_bias.normal_()
    assert assert_written_alike(published, padded, *texts).output_bias.any()


def test_without_a_head(twins):
    config, tokens, target, mask, _ = inputs("odd")
    published, ours = twins(BartModel(config))
    expected = published(input_ids=tokens, attention_mask=mask.long(), decoder_input_ids=target)
    context = ours.encode(tokens, mask)
    close(context[mask], expected.encoder_last_hidden_state[mask])
    close(ours.decode(target, context, mask), expected.last_hidden_state @ ours.embedding.weight.T)
