"""Published Mistral checkpoints, such as mistralai/Mistral-7B-v0.1: a Llama that sees no further than its window."""

from typing import Any

from mmlearn.models.text.llama import Llama, LlamaConfig
from mmlearn.pretrained import llama
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import Settings

DEFAULTS = dict(num_key_value_heads=8, intermediate_size=14_336, max_position_embeddings=131_072)


def config(published: dict[str, Any], names: set[str]) -> LlamaConfig:
    """Our configuration for a published ``config.json``. The numbers are defaults of that format."""
    whole = Settings(DEFAULTS | published, "config.json")
    return llama.language_model(whole, window=whole.optional("sliding_window", 4096))


FAMILY = Family(build=Llama, config=config, renames=llama.renames(), packed={}, ignored=llama.IGNORED, tied=llama.TIED)
