"""Published BERT checkpoints, such as google-bert/bert-base-uncased. The numbers are defaults of that format."""

from typing import Any

from mmlearn.models.text.bert import BERT, BERTConfig
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import BERT_DROPOUTS, Settings


def config(published: dict[str, Any], names: set[str]) -> BERTConfig:
    """Our configuration for a published ``config.json``, with the heads that the checkpoint has."""
    whole = Settings(published, "config.json")
    whole.refuse("is_decoder", True)
    whole.refuse("add_cross_attention", True)
    whole.require("position_embedding_type", "absolute")
    language_head = any("cls.predictions." in name for name in names)
    if language_head:
        whole.refuse("tie_word_embeddings", False)
    return BERTConfig(
        **whole.vocabulary(30_522, pad_token=0),
        max_length=whole.get("max_position_embeddings", 512),
        token_types=whole.get("type_vocab_size", 2),
        **whole.transformer(**BERT_DROPOUTS),
        pooler=any("pooler." in name for name in names),
        language_head=language_head,
        next_sentence_head=any("cls.seq_relationship." in name for name in names),
    )


BLOCK = (  # what a block calls its parts
    (r"\.attention\.self", ".attention"),
    (r"\.attention\.output\.dense", ".attention.output"),
    (r"\.attention\.output\.LayerNorm", ".attention_norm"),
    (r"\.intermediate\.dense", ".mlp.expand"),
    (r"(blocks\.\d+)\.output\.dense", r"\1.mlp.contract"),
    (r"(blocks\.\d+)\.output\.LayerNorm", r"\1.mlp_norm"),
)

FAMILY = Family(
    build=BERT,
    config=config,
    renames=(
        (r"^bert\.", ""),
        (r"\.gamma$", ".weight"),  # the names that norms had in TensorFlow
        (r"\.beta$", ".bias"),
        (r"^embeddings\.word_embeddings", "embedding.tokens"),
        (r"^embeddings\.position_embeddings\.weight", "embedding.positions"),
        (r"^embeddings\.token_type_embeddings", "embedding.token_types"),
        (r"^embeddings\.LayerNorm", "embedding.norm"),
        (r"^encoder\.layer", "transformer.blocks"),
        *BLOCK,
        (r"^pooler\.dense", "pooler.0"),
        (r"^cls\.predictions\.transform\.dense", "language_head.dense"),
        (r"^cls\.predictions\.transform\.LayerNorm", "language_head.norm"),
        (r"^cls\.predictions\.bias", "language_head.bias"),
        (r"^cls\.seq_relationship", "next_sentence_head"),
    ),
    packed={},
    # The decoder is the token table, and its bias the head's, stored twice.
    ignored=(r"\.position_ids$", r"^cls\.predictions\.decoder\."),
)
