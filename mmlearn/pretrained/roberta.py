"""Published RoBERTa checkpoints, such as FacebookAI/roberta-base. The numbers are defaults of that format."""

from typing import Any

from mmlearn.models.text.bert import BERT, BERTConfig
from mmlearn.pretrained import bert
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import BERT_DROPOUTS, Settings


def config(published: dict[str, Any], names: set[str]) -> BERTConfig:
    """Our configuration for a published ``config.json``, with the heads that the checkpoint has."""
    whole = Settings(published, "config.json")
    whole.refuse("is_decoder", True)
    whole.refuse("add_cross_attention", True)
    whole.require("position_embedding_type", "absolute")
    language_head = any(name.startswith("lm_head.") for name in names)
    if language_head:
        whole.refuse("tie_word_embeddings", False)
        whole.require("hidden_act", "gelu")  # that of the head, whatever this says
    vocabulary = whole.vocabulary(50_265, pad_token=1, optional=False)
    first_position = vocabulary["pad_token"] + 1
    return BERTConfig(
        **vocabulary,
        max_length=whole.get("max_position_embeddings", 512) - first_position,
        first_position=first_position,
        token_types=whole.get("type_vocab_size", 2),
        **whole.transformer(**BERT_DROPOUTS),
        pooler=any("pooler." in name for name in names),
        language_head=language_head,
    )


FAMILY = Family(
    build=BERT,
    config=config,
    renames=(
        (r"^roberta\.", ""),
        (r"^lm_head\.dense", "language_head.dense"),
        (r"^lm_head\.layer_norm", "language_head.norm"),
        (r"^lm_head\.bias", "language_head.bias"),
        *bert.FAMILY.renames[1:],  # all but BERT's own prefix
    ),
    packed={},
    ignored=(r"\.position_ids$", r"^lm_head\.decoder\."),  # the decoder is the token table
)
