"""Published VisualBERT checkpoints, such as uclanlp/visualbert-vqa-coco-pre. The numbers are that format's defaults."""

from typing import Any

from mmlearn.models.fusion.visual_bert import VisualBERT, VisualBERTConfig
from mmlearn.pretrained.bert import FAMILY as BERT
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import BERT_DROPOUTS, Settings


def config(published: dict[str, Any], names: set[str]) -> VisualBERTConfig:
    """Our configuration for a published ``config.json``, with the heads that the checkpoint has."""
    whole = Settings(published, "config.json")
    whole.refuse("bypass_transformer", True)
    objectives = {"cls.predictions.": "mlm", "cls.seq_relationship.": "itm"}
    objectives = tuple(name for head, name in objectives.items() if any(tensor.startswith(head) for tensor in names))
    if "mlm" in objectives:
        whole.refuse("tie_word_embeddings", False)
    return VisualBERTConfig(
        **whole.vocabulary(30_522, pad_token=1),
        max_length=whole.get("max_position_embeddings", 512),
        token_types=whole.get("type_vocab_size", 2),
        region_width=whole.get("visual_embedding_dim", 512),
        **whole.transformer(**BERT_DROPOUTS),
        pooler=any("pooler." in name for name in names),
        objectives=objectives,
    )


FAMILY = Family(
    build=VisualBERT,
    config=config,
    renames=(
        (r"^visual_bert\.", ""),
        (r"^embeddings\.visual_projection", "region_projection"),
        (r"^embeddings\.visual_token_type_embeddings", "region_types"),
        (r"^embeddings\.visual_position_embeddings\.weight", "region_positions"),
        (r"^cls\.seq_relationship", "match_head"),
        *(rename for rename in BERT.renames if rename[0] != r"^bert\."),  # a BERT alone is refused
    ),
    packed={},
    ignored=BERT.ignored,
)
