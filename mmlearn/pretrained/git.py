"""Published GIT checkpoints, such as microsoft/git-base-coco. The numbers are defaults of that format."""

from typing import Any

from mmlearn.layers import BERTEncoderConfig
from mmlearn.models.captions.git import GIT, GITConfig
from mmlearn.pretrained import bert, clip
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import BERT_DROPOUTS, Settings


def config(published: dict[str, Any], names: set[str]) -> GITConfig:
    """Our configuration for a published ``config.json``."""
    whole = Settings(published, "config.json")
    whole.refuse("tie_word_embeddings", True)
    if whole.values.get("num_image_with_embedding"):
        raise ValueError("num_image_with_embedding in config.json: GIT of videos is not built here, only of pictures.")
    return GITConfig(
        image=clip.image_encoder(whole.part("vision_config"), patch_size=16),
        text=BERTEncoderConfig(
            **whole.vocabulary(30_522, pad_token=0),
            max_length=whole.get("max_position_embeddings", 1024),
            token_types=0,
            **whole.transformer(depth=6, **BERT_DROPOUTS),
        ),
        start_token=whole.get("bos_token_id", 101),
        end_token=whole.get("eos_token_id", 102),
        label_smoothing=0.0,  # of which the format knows nothing
    )


FAMILY = Family(
    build=GIT,
    config=config,
    renames=(
        (r"^git\.(image_encoder\.(?=vision_model))?", ""),
        *clip.IMAGE,
        *clip.BLOCK,
        (r"^output\.", "language_head."),
        (r"^visual_projection\.visual_projection", "image_projection"),
        (r"^embeddings\.word_embeddings", "embedding.tokens"),
        (r"^embeddings\.position_embeddings\.weight", "embedding.positions"),
        (r"^embeddings\.LayerNorm", "embedding.norm"),
        (r"^encoder\.layer", "transformer.blocks"),
        *bert.BLOCK,
    ),
    packed={},
    ignored=(r"\.position_ids$",),
)
