"""Published data2vec checkpoints for text, such as facebook/data2vec-text-base: RoBERTa's layout under another name."""

from dataclasses import fields
from typing import Any

from mmlearn.layers import BERTEncoderConfig
from mmlearn.models.unified.data2vec_text import Data2VecText, Data2VecTextConfig
from mmlearn.pretrained import roberta
from mmlearn.pretrained.loading import Family


def config(published: dict[str, Any], names: set[str]) -> Data2VecTextConfig:
    """Our configuration for a published ``config.json``, with the heads that the checkpoint has."""
    found = roberta.config(dict(vocab_size=30_522) | published, names)
    text = BERTEncoderConfig(**{field.name: getattr(found, field.name) for field in fields(BERTEncoderConfig)})
    heads = dict(pooler=found.pooler, language_head=found.language_head)
    return Data2VecTextConfig(text=text, pretrain=False, **heads)


FAMILY = Family(
    build=Data2VecText,
    config=config,
    renames=((r"^data2vec_text\.", ""), *roberta.FAMILY.renames[1:], (r"^(embedding|transformer)\.", r"encoder.\1.")),
    packed={},
    ignored=roberta.FAMILY.ignored,
    fresh=("steps",),
)
