"""Published BEiT checkpoints, such as microsoft/beit-base-patch16-224-pt22k: for codes, for classes, or bare.

The numbers are defaults of that format, in which data2vec's pictures are published, too.
"""

from typing import Any

from mmlearn.models.vision.beit import BEiT, BEiTConfig
from mmlearn.models.vision.relative_encoder import RelativeEncoderConfig
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import VIT_DROPOUTS, Settings
from mmlearn.pretrained.vit import BLOCK, PATCHES


def relative_encoder(whole: Settings) -> RelativeEncoderConfig:
    """The encoder of BEiT and of data2vec."""
    whole.require("num_channels", 3)
    whole.require("use_mean_pooling", True)
    whole.refuse("add_fpn", True)
    each, shared = (whole.get(f"use_{kind}relative_position_bias", False) for kind in ("", "shared_"))
    if each and shared:
        raise ValueError(f"{whole.where} has relative positions for each block and for all: not built here together.")
    return RelativeEncoderConfig(
        image_size=whole.size("image_size", 224),
        patch_size=whole.get("patch_size", 16),
        mask_token=whole.get("use_mask_token", False),
        absolute_positions=whole.get("use_absolute_position_embeddings", False),
        relative_positions="blocks" if each else "shared" if shared else "none",
        layer_scale=whole.get("layer_scale_init_value", 0.1),
        **whole.transformer(**VIT_DROPOUTS),
    )


def config(published: dict[str, Any], names: set[str]) -> BEiTConfig:
    """Our configuration for a published ``config.json``, with the head that the checkpoint has."""
    whole = Settings(published, "config.json")
    return BEiTConfig(
        image=relative_encoder(whole),
        codes=whole.get("vocab_size", 8192) if any(name.startswith("lm_head.") for name in names) else 0,
        num_classes=whole.classes(learned=True) if any(name.startswith("classifier.") for name in names) else 0,
    )


RELATIVE = (
    (r"^(beit|data2vec_vision)\.", ""),
    *PATCHES,
    (r"^embeddings\.mask_token", "image_encoder.mask_token"),
    (
        r"^encoder\.layer\.(\d+)\.attention\.attention\.relative_position_bias\.relative_position_bias_table",
        r"image_encoder.relative.\1.table",
    ),
    (r"^encoder\.relative_position_bias\.relative_position_bias_table", "image_encoder.relative.0.table"),
    (r"^encoder\.layer", "image_encoder.transformer.blocks"),
    (r"\.lambda_1$", ".attention_scale"),
    (r"\.lambda_2$", ".mlp_scale"),
    *BLOCK,
    (r"^pooler\.layernorm", "pool_norm"),
)

FAMILY = Family(
    build=BEiT,
    config=config,
    renames=(*RELATIVE, (r"^layernorm", "code_norm"), (r"^lm_head", "code_head")),
    packed={},
    ignored=(r"relative_position_index$",),
)
