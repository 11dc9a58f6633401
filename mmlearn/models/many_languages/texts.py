"""What the systems of many languages share: the vocabulary and the sizes of XLM-R.

Source: Conneau et al. 2020 (XLM-R), section 3.
"""

from dataclasses import replace
from typing import Any, TypeVar

from mmlearn.layers import BERTEncoderConfig

XLM_R: dict[str, Any] = dict(vocab_size=250_002, max_length=256, first_position=2, pad_token=1, norm_epsilon=1e-5)
LARGE: dict[str, Any] = dict(width=1024, depth=24, num_heads=16)

AnyBERTConfig = TypeVar("AnyBERTConfig", bound=BERTEncoderConfig)


def for_two_texts(config: AnyBERTConfig) -> AnyBERTConfig:
    """The configuration with positions for a text and its translation in one row: XLM-R's 512 hold two texts of 256."""
    return replace(config, max_length=2 * config.max_length)
