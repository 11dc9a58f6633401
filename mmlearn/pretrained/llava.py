"""LLaVA checkpoints in the published layout whose language model is a GPT-2 and whose picture encoder is CLIP's.

The published models have LLaMA or Vicuna, which are not built here. The numbers are defaults of that format.
"""

from typing import Any

from mmlearn.models.bridges.llava import LLaVA, LLaVAConfig
from mmlearn.pretrained import clip, gpt2
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import ACTIVATIONS, Settings


def config(published: dict[str, Any], names: set[str]) -> LLaVAConfig:
    """Our configuration for a published ``config.json``."""
    whole = Settings(published, "config.json")
    image, text = whole.part("vision_config"), whole.part("text_config")
    check_parts(image, "clip_vision_model", text, ("gpt2",))
    whole.require("vision_feature_select_strategy", "default")
    layer = whole.values.get("vision_feature_layer", -2)
    depth = image.get("num_hidden_layers", 12)
    if not isinstance(layer, int) or not -depth - 1 <= layer <= depth:
        raise ValueError(f"vision_feature_layer in config.json is one of {depth} layers here, not {layer!r}.")
    activation = whole.get("projector_hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise ValueError(f"projector_hidden_act {activation!r} in config.json is not built here.")
    return LLaVAConfig(
        image_encoder=clip.image_encoder(image),
        language_model=gpt2.language_model(text),
        projector_activation=ACTIVATIONS[activation],
        projector_bias=whole.get("multimodal_projector_bias", True),
        skipped_blocks=-1 - layer if layer < 0 else depth - layer,
    )


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


LANGUAGE_MODEL = gpt2.renames(r"^(?:model\.)?language_model\.(?:model\.|transformer\.)?", "language_model.")

FAMILY = Family(
    build=LLaVA,
    config=config,
    renames=(
        (r"^(model\.)?vision_tower\.(vision_model\.)?", "vision_model."),
        (r"^(model\.)?multi_modal_projector\.linear_1", "projector.first"),
        (r"^(model\.)?multi_modal_projector\.linear_2", "projector.second"),
        *LANGUAGE_MODEL,
        *clip.FAMILY.renames,
    ),
    packed=gpt2.PACKED,
    ignored=(r"\.position_ids$", *gpt2.IGNORED),
    transposed=gpt2.TRANSPOSED,
)
