"""Published LLaVA-1.5 checkpoints, such as llava-hf/llava-1.5-7b-hf, whose language model is a Llama; and the same
layout with a GPT-2, as chapter 22 has it. The numbers are defaults of that format."""

import re
from typing import Any

from mmlearn.layers import Config
from mmlearn.models.bridges.llava import LLaVA, LLaVAConfig
from mmlearn.models.bridges.vlm import VLM, VLMConfig
from mmlearn.pretrained import clip, gpt2, llama
from mmlearn.pretrained.loading import Family, Renames
from mmlearn.pretrained.settings import ACTIVATIONS, Settings


def config(published: dict[str, Any], names: set[str]) -> LLaVAConfig | VLMConfig:
    """Our configuration for a published ``config.json``."""
    whole = Settings(published, "config.json")
    image, text = whole.part("vision_config"), whole.part("text_config")
    check_parts(image, "clip_vision_model", text, ("gpt2", "llama"))
    whole.require("vision_feature_select_strategy", "default")
    layer = whole.values.get("vision_feature_layer", -2)
    depth = image.get("num_hidden_layers", 12)
    if not isinstance(layer, int) or not -depth - 1 <= layer <= depth:
        raise ValueError(f"vision_feature_layer in config.json is one of {depth} layers here, not {layer!r}.")
    activation = whole.get("projector_hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise ValueError(f"projector_hidden_act {activation!r} in config.json is not built here.")
    shared: dict[str, Any] = dict(
        image_encoder=clip.image_encoder(image),
        projector_activation=ACTIVATIONS[activation],
        projector_bias=whole.get("multimodal_projector_bias", True),
        skipped_blocks=-1 - layer if layer < 0 else depth - layer,
    )
    if text.values["model_type"] == "gpt2":
        return LLaVAConfig(language_model=gpt2.language_model(text), **shared)
    image_token = whole.get("image_token_index", whole.get("image_token_id", 32_000))
    return VLMConfig(language_model=llama.language_model(text), image_token=image_token, **shared)


def build(config: Config) -> LLaVA | VLM:
    """The system of this configuration."""
    return VLM(config) if isinstance(config, VLMConfig) else LLaVA(config)


def check_parts(image: Settings, tower: str, text: Settings, speaks: tuple[str, ...]) -> None:
    """``ValueError`` where a part of a published model is none that is built here; a language model says its type."""
    for part, known, got in (
        (image, (tower,), image.values.get("model_type", tower)),
        (text, speaks, text.values.get("model_type")),
    ):
        if got not in known:
            raise ValueError(
                f"{part.where} is of model_type {got!r}, and only {' or '.join(map(repr, known))} is built here."
            )


PART = r"^(?:model\.)?language_model\.(?:model\.|transformer\.)?"
LANGUAGE_MODEL = gpt2.renames(PART, "language_model.")


def renames(names: set[str]) -> Renames:
    """Our names; those of the language model are a GPT-2's, which calls its blocks ``h``, or a Llama's."""
    of_gpt2 = any(re.search(r"(^|\.)h\.\d", name) for name in names)
    return (
        (r"^(model\.)?vision_tower\.(vision_model\.)?", "vision_model."),
        (r"^(model\.)?multi_modal_projector\.linear_1", "projector.first"),
        (r"^(model\.)?multi_modal_projector\.linear_2", "projector.second"),
        (r"^language_model\.lm_head\.", "lm_head."),  # as older files call it
        *(LANGUAGE_MODEL if of_gpt2 else llama.renames(PART, "language_model.")),
        *clip.FAMILY.renames,
    )


FAMILY = Family(
    build=build,
    config=config,
    renames=renames,
    packed=gpt2.PACKED,
    ignored=(r"\.position_ids$", gpt2.CAUSAL_MASKS, *llama.IGNORED),
    transposed=gpt2.TRANSPOSED,
    tied={
        "lm_head.weight": "language_model.embedding.tokens.weight",  # of a GPT-2
        "language_model.language_head.weight": "language_model.embedding.weight",  # of a Llama
    },
)
