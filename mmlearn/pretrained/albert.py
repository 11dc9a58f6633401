"""Published ALBERT checkpoints, such as albert/albert-base-v2. The numbers are defaults of that format."""

from typing import Any

from mmlearn.models.text.albert import ALBERT, ALBERTConfig
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import Settings


def config(published: dict[str, Any], names: set[str]) -> ALBERTConfig:
    """Our configuration for a published ``config.json``, with the heads that the checkpoint has."""
    whole = Settings(published, "config.json")
    for setting in ("num_hidden_groups", "inner_group_num"):
        whole.require(setting, 1)
    language_head = any(name.startswith("predictions.") for name in names)
    if language_head:
        whole.refuse("tie_word_embeddings", False)
    order_head = any(name.startswith("sop_classifier.") for name in names)
    if order_head and whole.classes() != 2:
        raise ValueError("num_labels or id2label in config.json should have 2 classes: in order, and exchanged.")
    dropouts = dict(dropout=("hidden_dropout_prob", 0.0), attention_dropout=("attention_probs_dropout_prob", 0.0))
    sizes = dict(width=4096, num_heads=64, mlp_width=16_384, activation="gelu_new")
    return ALBERTConfig(
        **whole.vocabulary(30_000, pad_token=0),
        max_length=whole.get("max_position_embeddings", 512),
        token_types=whole.get("type_vocab_size", 2),
        embedding_width=whole.get("embedding_size", 128),
        **whole.transformer(**sizes, **dropouts),
        pooler=any("pooler." in name for name in names),
        language_head=language_head,
        order_head=order_head,
    )


FAMILY = Family(
    build=ALBERT,
    config=config,
    renames=(
        (r"^albert\.", ""),
        (r"^embeddings\.word_embeddings", "embedding.tokens"),
        (r"^embeddings\.position_embeddings\.weight", "embedding.positions"),
        (r"^embeddings\.token_type_embeddings", "embedding.token_types"),
        (r"^embeddings\.LayerNorm", "embedding.norm"),
        (r"^encoder\.embedding_hidden_mapping_in", "widen"),
        (r"^encoder\.albert_layer_groups\.0\.albert_layers\.0", "block"),
        (r"^block\.attention\.dense", "block.attention.output"),
        (r"^block\.attention\.LayerNorm", "block.attention_norm"),
        (r"^block\.ffn\.", "block.mlp.expand."),
        (r"^block\.ffn_output", "block.mlp.contract"),
        (r"^block\.full_layer_layer_norm", "block.mlp_norm"),
        (r"^pooler\.", "pooler.0."),
        (r"^predictions\.dense", "language_head.dense"),
        (r"^predictions\.LayerNorm", "language_head.norm"),
        (r"^predictions\.bias", "language_head.bias"),
        (r"^sop_classifier\.classifier", "order_head"),
    ),
    packed={},
    ignored=(r"\.position_ids$", r"^predictions\.decoder\."),  # the decoder is the token table
)
