"""Published DistilBERT checkpoints, such as distilbert-base-uncased. The numbers are defaults of that format."""

from typing import Any

from mmlearn.models.text.bert import BERT, BERTConfig
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import Settings


def config(published: dict[str, Any], names: set[str]) -> BERTConfig:
    """Our configuration for a published ``config.json``, with the head that the checkpoint has."""
    whole = Settings(published, "config.json")
    whole.refuse("sinusoidal_pos_embds", True)
    language_head = any(name.startswith("vocab_") for name in names)
    if language_head:
        whole.refuse("tie_word_embeddings", False)
    return BERTConfig(
        **whole.vocabulary(30_522, pad_token=0),
        max_length=whole.get("max_position_embeddings", 512),
        token_types=0,
        width=whole.get("dim", 768),
        depth=whole.get("n_layers", 6),
        num_heads=whole.get("n_heads", 12),
        mlp_width=whole.get("hidden_dim", 3072),
        activation=whole.activation("gelu", name="activation"),
        dropout=whole.get("dropout", 0.1),
        attention_dropout=whole.get("attention_dropout", 0.1),
        pooler=False,
        language_head=language_head,
    )


FAMILY = Family(
    build=BERT,
    config=config,
    renames=(
        (r"^distilbert\.", ""),
        (r"^embeddings\.word_embeddings", "embedding.tokens"),
        (r"^embeddings\.position_embeddings\.weight", "embedding.positions"),
        (r"^embeddings\.LayerNorm", "embedding.norm"),
        (r"^transformer\.layer", "transformer.blocks"),
        (r"\.attention\.q_lin", ".attention.query"),
        (r"\.attention\.k_lin", ".attention.key"),
        (r"\.attention\.v_lin", ".attention.value"),
        (r"\.attention\.out_lin", ".attention.output"),
        (r"\.sa_layer_norm", ".attention_norm"),
        (r"\.ffn\.lin1", ".mlp.expand"),
        (r"\.ffn\.lin2", ".mlp.contract"),
        (r"\.output_layer_norm", ".mlp_norm"),
        (r"^vocab_transform", "language_head.dense"),
        (r"^vocab_layer_norm", "language_head.norm"),
        (r"^vocab_projector\.bias", "language_head.bias"),
    ),
    packed={},
    ignored=(r"^vocab_projector\.weight$",),  # the token table again
)
