"""T5 equals Transformers' T5ForConditionalGeneration: states, logits, loss, gradients."""

import pytest
import torch
from published import two_texts
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from mmlearn.models.text.t5 import distance_buckets

CASES = {
    "odd": dict(d_model=24, num_layers=2, num_heads=3, d_kv=7, d_ff=50, vocab_size=99, batch=3, length=11),
    "gated": dict(d_model=40, num_layers=3, num_heads=5, d_kv=8, d_ff=33, vocab_size=64, batch=4, length=40)
    | dict(feed_forward_proj="gated-gelu", num_decoder_layers=1, tie_word_embeddings=False),
    "batch of one": dict(d_model=16, num_layers=1, num_heads=1, d_kv=16, d_ff=24, vocab_size=50, batch=1, length=6)
    | dict(layer_norm_epsilon=1e-3, relative_attention_num_buckets=9, relative_attention_max_distance=20),
}


def inputs(case):
    """A model, texts, and targets of other lengths."""
    case = dict(CASES[case])
    batch, length = case.pop("batch"), case.pop("length")
    published = T5ForConditionalGeneration(T5Config(**case, decoder_start_token_id=0))
    if case.get("tie_word_embeddings") is False:
        published.lm_head.weight = nn.Parameter(torch.randn_like(published.lm_head.weight) * 0.2)
    return published, *two_texts(case["vocab_size"], batch, length)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_writing(case, padded, assert_written_alike):
    torch.manual_seed(1)
    published, *texts = inputs(case)
    ours = assert_written_alike(published, padded, *texts)
    assert (ours.language_head is None) == (case != "gated")


@pytest.mark.parametrize("causal", [False, True])
def test_buckets_are_those_of_theirs(causal):
    from transformers.models.t5.modeling_t5 import T5Attention

    position = torch.arange(300)
    expected = T5Attention._relative_position_bucket(position - position[:, None], not causal, 32, 128)
    assert torch.equal(distance_buckets(300, 300, 32, 128, causal), expected)
    assert torch.equal(distance_buckets(1, 300, 32, 128, causal), expected[-1:])
