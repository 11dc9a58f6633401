"""Published BLIP-2 models at random weights, with GPT-2, OPT and T5, and what they read."""

import torch
from published import sizes
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    GPT2Config,
    OPTConfig,
    T5Config,
)

CASES = {
    "odd": dict(former=sizes(24, 3, 3, 50), image=sizes(16, 1, 2, 36), size=(20, 5), queries=5, batch=3, length=11),
    "relu": dict(
        former=sizes(40, 2, 5, 33, hidden_act="relu", cross_attention_frequency=1), queries=3, batch=4, length=8,
        image=sizes(24, 2, 3, 20, layer_norm_eps=1e-4), size=(16, 8),
    ),
    "batch of one": dict(
        former=sizes(16, 4, 1, 24, layer_norm_eps=1e-5, cross_attention_frequency=3), queries=1, batch=1, length=5,
        image=sizes(16, 2, 1, 24, hidden_act="relu"), size=(12, 4),
    ),
}  # fmt: skip
WORDS, IMAGE = 90, 92  # then [Decode] = 90
ENDS = dict(bos_token_id=1, eos_token_id=2)
LANGUAGE = {
    "gpt2": lambda n: GPT2Config(vocab_size=93, n_positions=n, n_embd=24, n_layer=2, n_head=3, **ENDS),
    "opt": lambda n: OPTConfig(
        vocab_size=93, max_position_embeddings=n, ffn_dim=36, **sizes(24, 2, 3, 0), **ENDS, pad_token_id=0
    ),
    "t5": lambda n: T5Config(
        vocab_size=93, d_model=24, d_kv=10, d_ff=36, num_layers=2, num_heads=3, feed_forward_proj="gated-gelu",
        relative_attention_num_buckets=6, relative_attention_max_distance=16, tie_word_embeddings=False,
        eos_token_id=2, pad_token_id=0, decoder_start_token_id=0,
    ),
}  # fmt: skip


def inputs(name, reads_text, language):
    case = CASES[name]
    (size, patch), q, batch, length = case["size"], case["queries"], case["batch"], case["length"]
    config = Blip2Config(
        vision_config=Blip2VisionConfig(image_size=size, patch_size=patch, **case["image"]),
        qformer_config=Blip2QFormerConfig(
            vocab_size=WORDS + 1, max_position_embeddings=length, use_qformer_text_input=reads_text, **case["former"]
        ),
        text_config=LANGUAGE[language](q + length),
        num_query_tokens=q,
        image_text_hidden_size=12,
        image_token_index=None if reads_text else IMAGE,
    )
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(4, WORDS, (batch, length), generator=generator)
    image = torch.randn(batch, 3, size, size, generator=generator)
    mask = torch.arange(length) <= torch.arange(batch)[:, None] + 2
    return config, image, tokens, mask


def speaking(config):
    """With a language head of its own where the language model is a T5, as of FlanT5."""
    model = Blip2ForConditionalGeneration(config)
    if config.text_config.model_type == "t5":
        head = model.language_model.lm_head
        head.weight = torch.nn.Parameter(torch.randn_like(head.weight) * 0.2)
    return model


def pair(name, kind, twins, language="gpt2"):
    config, image, tokens, mask = inputs(name, kind is Blip2ForImageTextRetrieval, language)
    published, ours = twins(speaking(config) if kind is Blip2ForConditionalGeneration else kind(config))
    ours.requires_grad_(True)  # also what BLIP-2 never trains; that gradients are equal says more
    return published, ours, image, tokens, mask
