"""Published SmolVLM and Idefics3 checkpoints, such as HuggingFaceTB/SmolVLM-256M-Instruct. The numbers are defaults of
that format."""

from dataclasses import replace
from typing import Any

from mmlearn.layers import ImageEncoderConfig
from mmlearn.models.bridges.vlm import VLM, VLMConfig
from mmlearn.pretrained import llama
from mmlearn.pretrained.clip import BLOCK
from mmlearn.pretrained.llava import check_parts
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import Settings
from mmlearn.pretrained.siglip import SIGLIP_DEFAULTS


def config(published: dict[str, Any], names: set[str]) -> VLMConfig:
    """Our configuration for a published ``config.json``."""
    whole = Settings(published, "config.json")
    image, text = whole.part("vision_config"), whole.part("text_config")
    check_parts(image, image.values.get("model_type"), text, ("llama",))  # the tower is a SigLIP by many names
    image.require("num_channels", 3)
    return VLMConfig(
        image_encoder=ImageEncoderConfig(
            image_size=image.size("image_size", 224),
            patch_size=image.get("patch_size", 32),
            **image.transformer(width=1152, num_heads=16, **SIGLIP_DEFAULTS),
            class_token=False,
        ),
        # The head is the whole model's, and so is what the settings say of it.
        language_model=replace(llama.language_model(text), tied=whole.get("tie_word_embeddings", False)),
        image_token=whole.get("image_token_id", 128_257),
        shuffle=whole.get("scale_factor", 2),
        projector_layers=1,
        projector_bias=False,
    )


FAMILY = Family(
    build=VLM,
    config=config,
    renames=(
        *llama.renames(r"^model\.text_model\.", "language_model."),
        (r"^model\.connector\.modality_projection\.proj", "projector.first"),
        (r"^model\.vision_model\.embeddings\.patch_embedding", "image_encoder.embedding.patches"),
        (r"^model\.vision_model\.embeddings\.position_embedding\.weight", "image_encoder.embedding.positions"),
        (r"^model\.vision_model\.post_layernorm", "image_encoder.norm"),
        (r"^model\.vision_model\.encoder\.layers", "image_encoder.transformer.blocks"),
        *BLOCK,
    ),
    packed={},
    ignored=(r"\.position_ids$", *llama.IGNORED),
    tied={f"language_model.{name}": f"language_model.{twin}" for name, twin in llama.TIED.items()},
)
