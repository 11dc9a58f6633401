"""Published MAE checkpoints, such as facebook/vit-mae-base, with the decoder or bare.

The numbers are defaults of that format.
"""

from typing import Any

from mmlearn.models.vision.mae import MAE, MAEConfig
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import Settings
from mmlearn.pretrained.vit import BLOCK, PATCHES
from mmlearn.pretrained.vit import config as vit


def config(published: dict[str, Any], names: set[str]) -> MAEConfig:
    """Our configuration for a published ``config.json``, with the decoder if the checkpoint has it."""
    whole = Settings(published, "config.json")
    decoder = any(name.startswith("decoder.") for name in names)
    return MAEConfig(
        image=vit(published, set()).image,
        decoder_width=whole.get("decoder_hidden_size", 512),
        decoder_depth=whole.get("decoder_num_hidden_layers", 8) if decoder else 0,
        decoder_heads=whole.get("decoder_num_attention_heads", 16),
        decoder_mlp_width=whole.get("decoder_intermediate_size", 2048),
        mask_share=whole.get("mask_ratio", 0.75),
        normalise_pixels=whole.get("norm_pix_loss", False),
    )


FAMILY = Family(
    build=MAE,
    config=config,
    renames=(
        (r"^vit\.", ""),
        *PATCHES,
        (r"^encoder\.layer", "image_encoder.transformer.blocks"),
        (r"^layernorm", "image_encoder.norm"),
        (r"^decoder\.decoder_encoder\.layer", "decoder.transformer.blocks"),
        (r"^decoder\.decoder_embed", "decoder.project"),
        (r"^decoder\.decoder_pos_embed", "decoder.positions"),
        (r"^decoder\.decoder_norm", "decoder.norm"),
        (r"^decoder\.decoder_pred", "decoder.pixels"),
        *BLOCK,
    ),
    packed={},
    ignored=(),
)
