"""Published SigLIP checkpoints, such as google/siglip-base-patch16-224. The numbers are defaults of that format."""

from typing import Any

from mmlearn.layers import ImageEncoderConfig, TextEncoderConfig
from mmlearn.models.contrastive.siglip import SigLIP, SigLIPConfig
from mmlearn.pretrained.clip import BLOCK
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import CLIP_DROPOUTS, Settings

SIGLIP_DEFAULTS = dict(activation="gelu_pytorch_tanh", norm_epsilon=1e-6, **CLIP_DROPOUTS)


def config(published: dict[str, Any], names: set[str]) -> SigLIPConfig:
    """Our configuration for a published ``config.json``."""
    whole = Settings(published, "config.json")
    image, text = whole.part("vision_config"), whole.part("text_config")
    image.refuse("vision_use_head", False)
    image.require("num_channels", 3)
    text.require("projection_size", image.get("hidden_size", 768))
    vocabulary = text.vocabulary(32_000, pad_token=1)
    pad_token = vocabulary.pop("pad_token")
    return SigLIPConfig(
        image=ImageEncoderConfig(
            image_size=image.size("image_size", 224),
            patch_size=image.get("patch_size", 16),
            **image.transformer(**SIGLIP_DEFAULTS),
            class_token=False,
        ),
        text=TextEncoderConfig(
            **vocabulary,
            max_length=text.get("max_position_embeddings", 64),
            **text.transformer(**SIGLIP_DEFAULTS),
            causal=False,
        ),
        pad_token=1 if pad_token is None else pad_token,
    )


FAMILY = Family(
    build=SigLIP,
    config=config,
    renames=(
        (r"^vision_model\.embeddings\.patch_embedding", "image_encoder.embedding.patches"),
        (r"^vision_model\.embeddings\.position_embedding\.weight", "image_encoder.embedding.positions"),
        (r"^vision_model\.post_layernorm", "image_encoder.norm"),
        (r"^vision_model\.encoder\.layers", "image_encoder.transformer.blocks"),
        (r"^vision_model\.head\.probe", "image_head.pooling.queries"),
        (r"^vision_model\.head\.attention\.in_proj_", "image_head.pooling.attention.in_proj."),
        (r"^vision_model\.head\.attention\.out_proj", "image_head.pooling.attention.output"),
        (r"^vision_model\.head\.layernorm", "image_head.norm"),
        (r"^vision_model\.head\.mlp", "image_head.mlp"),
        (r"^text_model\.embeddings\.token_embedding", "text_encoder.embedding.tokens"),
        (r"^text_model\.embeddings\.position_embedding\.weight", "text_encoder.embedding.positions"),
        (r"^text_model\.final_layer_norm", "text_encoder.norm"),
        (r"^text_model\.encoder\.layers", "text_encoder.transformer.blocks"),
        (r"^text_model\.head", "text_head"),
        *BLOCK,
    ),
    packed={
        r"image_head\.pooling\.attention\.in_proj": tuple(
            f"image_head.pooling.attention.{part}" for part in ("query", "key", "value")
        )
    },
    ignored=(r"\.position_ids$",),
)
