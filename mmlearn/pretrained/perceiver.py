"""Published Perceiver IO checkpoints, such as deepmind/language-perceiver and deepmind/vision-perceiver-fourier.

The numbers are defaults of that format. It says nowhere what a model reads; its tensors do.
"""

from typing import Any

from mmlearn.models.unified.perceiver_io import PerceiverIO, PerceiverIOConfig
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import Settings


def config(published: dict[str, Any], names: set[str]) -> PerceiverIOConfig:
    """Our configuration for a published ``config.json``, with what the checkpoint reads and the heads that it has."""
    whole = Settings(published, "config.json")
    whole.require("cross_attention_shape_for_attention", "kv")
    text = any(".input_preprocessor." in name for name in names)
    words_said = any(name.startswith(("perceiver.decoder.decoding", "embedding_decoder.")) for name in names)
    classes = any(name.startswith("perceiver.decoder.decoder.") for name in names)
    if not (words_said or classes):
        raise ValueError("it has no decoder: a Perceiver IO is built here for words or for classes.")
    width = whole.get("d_latents", 1280)
    words = whole.get("d_model", 768)
    for name in ("num_self_attention_heads", "num_cross_attention_heads"):
        if width % whole.get(name, 8):
            raise ValueError(f"d_latents {width} is no multiple of {name} {whole.get(name, 8)}.")
    return PerceiverIOConfig(
        latents=whole.get("num_latents", 256),
        width=width,
        depth=whole.get("num_self_attends_per_block", 26),
        repeats=whole.get("num_blocks", 1),
        num_heads=whole.get("num_self_attention_heads", 8),
        cross_heads=whole.get("num_cross_attention_heads", 8),
        key_width=whole.optional("qk_channels"),
        value_width=whole.optional("v_channels"),
        mlp_factor=whole.get("self_attention_widening_factor", 1),
        cross_mlp_factor=whole.get("cross_attention_widening_factor", 1),
        query_residual=whole.get("use_query_residual", True),
        activation=whole.activation("gelu"),
        dropout=whole.get("attention_probs_dropout_prob", 0.1),
        vocab_size=whole.get("vocab_size", 262) if text else 0,
        max_length=whole.get("max_position_embeddings", 2048),
        text_width=words,
        language_head=words_said,
        images=not text,
        num_classes=whole.classes(learned=True) if classes else 0,
    )


BLOCK = (
    (r"\.attention\.self\.layernorm1\.", ".attention_norm."),
    (r"\.attention\.self\.layernorm2\.", ".context_norm."),
    (r"\.attention\.self\.", ".attention."),
    (r"\.attention\.output\.dense\.", ".attention.output."),
    (r"\.layernorm\.", ".mlp_norm."),
    (r"\.mlp\.dense1\.", ".mlp.expand."),
    (r"\.mlp\.dense2\.", ".mlp.contract."),
)

FAMILY = Family(
    build=PerceiverIO,
    config=config,
    renames=(
        (r"^perceiver\.", ""),
        (r"^embeddings\.latents$", "latents"),
        (r"^input_preprocessor\.embeddings\.", "embedding.tokens."),
        (r"^input_preprocessor\.position_embeddings\.weight$", "embedding.positions"),
        (r"^encoder\.cross_attention\.", "encoder."),
        (r"^encoder\.self_attends\.", "processor."),
        (r"^decoder\.output_position_encodings\.position_embeddings$", "word_queries"),
        (r"^decoder\.decoding_cross_attention\.", "word_decoder."),
        (r"^decoder\.decoder\.output_position_encodings\.position_embeddings$", "class_query"),
        (r"^decoder\.decoder\.decoding_cross_attention\.", "class_decoder."),
        (r"^decoder\.decoder\.final_layer\.", "classifier."),
        (r"^embedding_decoder\.bias$", "word_bias"),
        *BLOCK,
    ),
    packed={},
    ignored=(),
)
