"""The published vision–language models, LLaVA-1.5, Idefics3 and SmolVLM: what they are built from.

Numbers are those of the released ``config.json`` files, which :mod:`mmlearn.models.bridges.vlm` names.
"""

from dataclasses import replace
from typing import Any

from mmlearn.layers import ImageEncoderConfig
from mmlearn.models.text.llama import LlamaConfig, RotaryConfig

SIGLIP: dict[str, Any] = dict(class_token=False, activation="gelu_tanh", norm_epsilon=1e-6)
SIGLIP_B = ImageEncoderConfig(768, 12, 12, image_size=512, patch_size=16, **SIGLIP)
SIGLIP_SO400M = ImageEncoderConfig(1152, 27, 16, mlp_width=4304, image_size=384, patch_size=14, **SIGLIP)
CLIP_L = ImageEncoderConfig(1024, 24, 16, image_size=336, patch_size=14, embedding_norm=True, activation="quick_gelu")
LLAVA: dict[str, Any] = dict(image_encoder=CLIP_L, skipped_blocks=1, image_token=32_000)
VICUNA: dict[str, Any] = dict(vocab_size=32_064, pad_token=32_001)  # Llama 2, tuned on conversations
LLAMA_3_8B = LlamaConfig(
    **LlamaConfig.PRESETS["Llama-3.2-1B"]
    | dict(vocab_size=128_259, width=4096, depth=32, mlp_width=14_336, tied=False, pad_token=128_002)
    | dict(rotary=RotaryConfig(500_000.0, "llama3", 8.0))
)


def smollm2(size: str, vocab_size: int) -> LlamaConfig:
    """SmolLM2 with tokens for images and turns, and a language head of its own."""
    return LlamaConfig(**LlamaConfig.PRESETS[f"SmolLM2-{size}"] | dict(vocab_size=vocab_size, tied=False, pad_token=2))


def one_matrix(
    shuffle: int, image_token: int, image_encoder: ImageEncoderConfig, language_model: LlamaConfig
) -> dict[str, Any]:
    """The settings of Idefics3 and SmolVLM."""
    parts = dict(image_encoder=image_encoder, language_model=language_model)
    return parts | dict(image_token=image_token, shuffle=shuffle, projector_layers=1, projector_bias=False)


PUBLISHED: dict[str, dict[str, Any]] = {
    "LLaVA-1.5-7B": LLAVA | dict(language_model=LlamaConfig(**VICUNA)),
    "LLaVA-1.5-13B": LLAVA
    | dict(language_model=LlamaConfig(**VICUNA | dict(width=5120, depth=40, num_heads=40, mlp_width=13_824))),
    "Idefics3-8B": one_matrix(2, 128_257, replace(SIGLIP_SO400M, image_size=364), LLAMA_3_8B),
    "SmolVLM-256M": one_matrix(4, 49_190, SIGLIP_B, smollm2("135M", 49_280)),
    "SmolVLM-500M": one_matrix(4, 49_190, SIGLIP_B, smollm2("360M", 49_280)),
    # Two published parts, to be joined: an image takes 49 tokens, as in nanoVLM-222M.
    "SigLIP-B/16+SmolLM2-360M": dict(
        image_encoder=replace(SIGLIP_B, image_size=224),
        language_model=LlamaConfig(**LlamaConfig.PRESETS["SmolLM2-360M"]),
        shuffle=2,
    ),
    "SmolVLM-2.2B": one_matrix(3, 49_153, SIGLIP_SO400M, smollm2("1.7B", 49_155)),
}


def check_sizes(config: Any, language_model: Any = None) -> None:
    """``ValueError`` for a configuration that no model can be built from, or not with this language model."""
    given = config.language_model if language_model is None else language_model.config
    if (found := (given.width, given.vocab_size)) != (config.language_model.width, config.language_model.vocab_size):
        raise ValueError(
            f"The language model has width {found[0]} and {found[1]:,} tokens; the configuration says "
            f"{config.language_model.width} and {config.language_model.vocab_size:,}: give it the model's own."
        )
    tower, language, s = config.image_encoder, config.language_model, config.shuffle
    sides = (tower.image_size,) * 2 if isinstance(tower.image_size, int) else tower.image_size
    if s < 1 or any(side // tower.patch_size % s for side in sides):
        grid = " × ".join(str(side // tower.patch_size) for side in sides)
        raise ValueError(f"{grid} patches cannot be shuffled by {s}: take a divisor.")
    if config.skipped_blocks is not None and config.skipped_blocks > tower.depth:
        raise ValueError(f"Of {tower.depth} blocks {config.skipped_blocks} cannot be skipped.")
    if config.image_token is not None and config.image_token >= language.vocab_size:
        raise ValueError(f"image_token {config.image_token} is none of the {language.vocab_size} tokens.")
    if config.num_image_tokens >= language.max_length:
        raise ValueError(
            f"An image takes {config.num_image_tokens} tokens, and the language model reads {language.max_length} at "
            "most: raise shuffle, or take smaller images or pooled_tokens."
        )
