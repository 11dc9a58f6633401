"""Published ViT checkpoints, such as google/vit-base-patch16-224. The numbers are defaults of that format."""

from typing import Any

from mmlearn.layers import ImageEncoderConfig
from mmlearn.models.vision.vit import ViT, ViTConfig
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import VIT_DROPOUTS, Settings


def config(published: dict[str, Any], names: set[str]) -> ViTConfig:
    """Our configuration for a published ``config.json``, with the heads that the checkpoint has."""
    whole = Settings(published, "config.json")
    whole.refuse("qkv_bias", False)
    whole.require("num_channels", 3)
    hidden_head = any("pooler." in name for name in names)
    if hidden_head:
        whole.require("pooler_act", "tanh")
        whole.require("pooler_output_size", whole.get("hidden_size", 768))
    return ViTConfig(
        image=ImageEncoderConfig(
            image_size=whole.size("image_size", 224),
            patch_size=whole.get("patch_size", 16),
            **whole.transformer(**VIT_DROPOUTS),
        ),
        hidden_head=hidden_head,
        num_classes=whole.classes(learned=True) if any(name.startswith("classifier.") for name in names) else 0,
    )


PATCHES = (
    (r"^embeddings\.cls_token", "image_encoder.embedding.class_token"),
    (r"^embeddings\.position_embeddings", "image_encoder.embedding.positions"),
    (r"^embeddings\.patch_embeddings\.projection", "image_encoder.embedding.patches"),
)
BLOCK = (
    (r"\.attention\.attention", ".attention"),
    (r"\.attention\.output\.dense", ".attention.output"),
    (r"\.intermediate\.dense", ".mlp.expand"),
    (r"(blocks\.\d+)\.output\.dense", r"\1.mlp.contract"),
    (r"\.layernorm_before", ".attention_norm"),
    (r"\.layernorm_after", ".mlp_norm"),
)

FAMILY = Family(
    build=ViT,
    config=config,
    renames=(
        (r"^vit\.", ""),
        *PATCHES,
        (r"^encoder\.layer", "image_encoder.transformer.blocks"),
        *BLOCK,
        (r"^layernorm", "image_encoder.norm"),
        (r"^pooler\.dense", "head.0"),
    ),
    packed={},
    ignored=(),
)
