"""Published CLIP checkpoints, such as openai/clip-vit-base-patch32. The numbers are defaults of that format."""

from typing import Any

from mmlearn.layers import ImageEncoderConfig, TextEncoderConfig
from mmlearn.models.contrastive.clip import CLIP, CLIPConfig
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import CLIP_DROPOUTS, Settings

CLIP_DEFAULTS = dict(activation="quick_gelu", norm_epsilon=1e-5, **CLIP_DROPOUTS)


def config(published: dict[str, Any], names: set[str]) -> CLIPConfig:
    """Our configuration for a published ``config.json``."""
    whole = Settings(published, "config.json")
    image, text = _tower(whole, "vision_config"), _tower(whole, "text_config")
    end_token = text.get("eos_token_id", 49407)
    return CLIPConfig(
        image=image_encoder(image),
        text=TextEncoderConfig(
            vocab_size=text.get("vocab_size", 49408),
            max_length=text.get("max_position_embeddings", 77),
            **text.transformer(width=512, num_heads=8, mlp_width=2048, **CLIP_DEFAULTS),
        ),
        embedding_width=whole.get("projection_dim", 512),
        end_token=None if end_token == 2 else end_token,  # 2 stands in old files; they mean the highest id
    )


def image_encoder(image: Settings, patch_size: int = 32) -> ImageEncoderConfig:
    """Our configuration of the tower that reads pictures, a part of other models, whose patches differ by default."""
    image.require("num_channels", 3)
    return ImageEncoderConfig(
        image_size=image.size("image_size", 224),
        patch_size=image.get("patch_size", patch_size),
        **image.transformer(**CLIP_DEFAULTS),
        embedding_norm=True,
    )


def _tower(whole: Settings, name: str) -> Settings:
    """The settings of a tower. What old files call ``vision_config_dict`` stands in place of ``vision_config``."""
    older = f"{name}_dict"
    return whole.part(name if whole.values.get(older) is None else older)


IMAGE = (  # what the tower that reads pictures calls its parts
    (r"^vision_model\.embeddings\.class_embedding", "image_encoder.embedding.class_token"),
    (r"^vision_model\.embeddings\.patch_embedding", "image_encoder.embedding.patches"),
    (r"^vision_model\.embeddings\.position_embedding\.weight", "image_encoder.embedding.positions"),
    (r"^vision_model\.pre_layrnorm", "image_encoder.embedding_norm"),
    (r"^vision_model\.post_layernorm", "image_encoder.norm"),
    (r"^vision_model\.encoder\.layers", "image_encoder.transformer.blocks"),
)
BLOCK = (  # what a block of either tower calls its parts
    (r"\.self_attn\.q_proj", ".attention.query"),
    (r"\.self_attn\.k_proj", ".attention.key"),
    (r"\.self_attn\.v_proj", ".attention.value"),
    (r"\.self_attn\.out_proj", ".attention.output"),
    (r"\.layer_norm1", ".attention_norm"),
    (r"\.layer_norm2", ".mlp_norm"),
    (r"\.mlp\.fc1", ".mlp.expand"),
    (r"\.mlp\.fc2", ".mlp.contract"),
)

FAMILY = Family(
    build=CLIP,
    config=config,
    renames=(
        *IMAGE,
        (r"^visual_projection", "image_projection"),
        (r"^text_model\.embeddings\.token_embedding", "text_encoder.embedding.tokens"),
        (r"^text_model\.embeddings\.position_embedding\.weight", "text_encoder.embedding.positions"),
        (r"^text_model\.final_layer_norm", "text_encoder.norm"),
        (r"^text_model\.encoder\.layers", "text_encoder.transformer.blocks"),
        *BLOCK,
    ),
    packed={},
    ignored=(r"\.position_ids$",),
)
