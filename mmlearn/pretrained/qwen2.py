"""Published Qwen2 and Qwen2.5 checkpoints, such as Qwen/Qwen2-0.5B: a Llama whose queries, keys and values have biases.

Its texts begin with no start token, whatever ``bos_token_id`` says.
"""

from typing import Any

from mmlearn.models.text.llama import Llama, LlamaConfig
from mmlearn.pretrained import llama
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import Settings

DEFAULTS = dict(vocab_size=151_936, intermediate_size=22_016, num_key_value_heads=32, max_position_embeddings=32_768)


def config(published: dict[str, Any], names: set[str]) -> LlamaConfig:
    """Our configuration for a published ``config.json``. The numbers are defaults of that format."""
    whole = Settings(DEFAULTS | published | dict(bos_token_id=None), "config.json")
    whole.refuse("use_sliding_window", True)
    if set(whole.values.get("layer_types") or []) - {"full_attention"}:
        raise ValueError(
            f"layer_types in {whole.where} has other attention than full_attention, which is all there is."
        )
    return llama.language_model(whole, qkv_bias=True)


FAMILY = Family(build=Llama, config=config, renames=llama.renames(), packed={}, ignored=llama.IGNORED, tied=llama.TIED)
