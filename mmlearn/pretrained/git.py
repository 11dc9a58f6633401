"""Published GIT checkpoints, such as microsoft/git-base-coco. The numbers are defaults of that format."""

from typing import Any

from mmlearn.layers import BERTEncoderConfig, ImageEncoderConfig
from mmlearn.models.captions.git import GIT, GITConfig
from mmlearn.pretrained.clip import CLIP_DEFAULTS
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import BERT_DROPOUTS, Settings


def config(published: dict[str, Any], names: set[str]) -> GITConfig:
    """Our configuration for a published ``config.json``."""
    whole = Settings(published, "config.json")
    image = whole.part("vision_config")
    image.require("num_channels", 3)
    whole.refuse("tie_word_embeddings", True)
    if whole.values.get("num_image_with_embedding"):
        raise ValueError("num_image_with_embedding in config.json: GIT of videos is not built here, only of pictures.")
    return GITConfig(
        image=ImageEncoderConfig(
            image_size=image.get("image_size", 224),
            patch_size=image.get("patch_size", 16),
            embedding_norm=True,
            **image.transformer(**CLIP_DEFAULTS),
        ),
        text=BERTEncoderConfig(
            vocab_size=whole.get("vocab_size", 30_522),
            max_length=whole.get("max_position_embeddings", 1024),
            token_types=0,
            pad_token=whole.optional("pad_token_id", 0),
            **whole.transformer(depth=6, **BERT_DROPOUTS),
        ),
        start_token=whole.get("bos_token_id", 101),
        end_token=whole.get("eos_token_id", 102),
        label_smoothing=0.0,  # of which the format knows nothing
    )


PICTURE = r"^git\.image_encoder\.vision_model"
FAMILY = Family(
    build=GIT,
    config=config,
    renames=(
        (rf"{PICTURE}\.embeddings\.class_embedding", "image_encoder.embedding.class_token"),
        (rf"{PICTURE}\.embeddings\.patch_embedding", "image_encoder.embedding.patches"),
        (rf"{PICTURE}\.embeddings\.position_embedding\.weight", "image_encoder.embedding.positions"),
        (rf"{PICTURE}\.pre_layrnorm", "image_encoder.embedding_norm"),
        (rf"{PICTURE}\.post_layernorm", "image_encoder.norm"),
        (rf"{PICTURE}\.encoder\.layers", "image_encoder.transformer.blocks"),
        (r"\.self_attn\.q_proj", ".attention.query"),
        (r"\.self_attn\.k_proj", ".attention.key"),
        (r"\.self_attn\.v_proj", ".attention.value"),
        (r"\.self_attn\.out_proj", ".attention.output"),
        (r"\.layer_norm1", ".attention_norm"),
        (r"\.layer_norm2", ".mlp_norm"),
        (r"\.mlp\.fc1", ".mlp.expand"),
        (r"\.mlp\.fc2", ".mlp.contract"),
        (r"^output\.", "language_head."),
        (r"^git\.visual_projection\.visual_projection", "image_projection"),
        (r"^git\.embeddings\.word_embeddings", "embedding.tokens"),
        (r"^git\.embeddings\.position_embeddings\.weight", "embedding.positions"),
        (r"^git\.embeddings\.LayerNorm", "embedding.norm"),
        (r"^git\.encoder\.layer", "transformer.blocks"),
        (r"\.attention\.self", ".attention"),
        (r"\.attention\.output\.dense", ".attention.output"),
        (r"\.attention\.output\.LayerNorm", ".attention_norm"),
        (r"\.intermediate\.dense", ".mlp.expand"),
        (r"(blocks\.\d+)\.output\.dense", r"\1.mlp.contract"),
        (r"(blocks\.\d+)\.output\.LayerNorm", r"\1.mlp_norm"),
    ),
    packed={},
    ignored=(r"\.position_ids$",),
)
