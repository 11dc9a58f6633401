"""Published data2vec checkpoints for text, such as facebook/data2vec-text-base: RoBERTa's layout under another name."""

from typing import Any

from mmlearn.models.unified.data2vec_text import Data2VecText, Data2VecTextConfig
from mmlearn.pretrained import roberta
from mmlearn.pretrained.loading import Family


def config(published: dict[str, Any], names: set[str]) -> Data2VecTextConfig:
    """Our configuration for a published ``config.json``, with the heads that the checkpoint has."""
    defaults = dict(vocab_size=30_522)
    return Data2VecTextConfig(text=roberta.config(defaults | published, names), pretrain=False)


FAMILY = Family(
    build=Data2VecText,
    config=config,
    renames=((r"^data2vec_text\.", ""), *roberta.FAMILY.renames[1:], (r"^", "encoder.")),
    packed={},
    ignored=roberta.FAMILY.ignored,
    fresh=("steps",),
)
