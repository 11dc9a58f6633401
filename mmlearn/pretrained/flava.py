"""Published FLAVA checkpoints, such as facebook/flava-full, for pretraining or bare.

The numbers are defaults of that format.
"""

from typing import Any

from mmlearn.layers import BERTEncoderConfig, ImageEncoderConfig, TransformerConfig
from mmlearn.models.unified.flava import FLAVA, FLAVAConfig
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import VIT_DROPOUTS, Settings
from mmlearn.pretrained.vit import BLOCK

WEIGHTS = ("mim", "mlm", "global_contrastive", "itm", "mmm_image", "mmm_text")


def config(published: dict[str, Any], names: set[str]) -> FLAVAConfig:
    """Our configuration for a published ``config.json``, with the heads and the codebook that the checkpoint has."""
    whole = Settings(published, "config.json")
    image, text, fusion, codebook = (
        whole.part(f"{name}_config") for name in ("image", "text", "multimodal", "image_codebook")
    )
    for part in (image, text, fusion):
        part.refuse("qkv_bias", False)
    image.require("num_channels", 3)
    image.require("mask_token", True)
    fusion.require("use_cls_token", True)
    for name in WEIGHTS:
        whole.require(f"{name}_weight", 1.0)
    whole.require("ce_ignore_index", -100)
    codes = image.get("vocab_size", 8192)
    made = any(name.startswith("image_codebook.") for name in names)
    if made:
        whole.refuse("init_codebook", False)
        codebook.require("num_groups", 4)
        codebook.require("num_blocks_per_group", 2)
        codebook.require("input_channels", 3)
        codebook.require("vocab_size", codes)
    heads = any(name.startswith("mim_head.") for name in names)
    if heads:  # whose pooler is of this width, and whose biases are stored once
        whole.refuse("tie_word_embeddings", False)
        whole.require("hidden_size", fusion.get("hidden_size", 768))
    return FLAVAConfig(
        image=ImageEncoderConfig(
            image_size=image.size("image_size", 224),
            patch_size=image.get("patch_size", 16),
            **image.transformer(**VIT_DROPOUTS),
        ),
        text=BERTEncoderConfig(
            **text.vocabulary(30_522, pad_token=0),
            max_length=text.get("max_position_embeddings", 512),
            token_types=text.get("type_vocab_size", 2),
            norm_first=True,
            **text.transformer(**VIT_DROPOUTS),
        ),
        fusion=TransformerConfig(**fusion.transformer(depth=6, **VIT_DROPOUTS)),
        embedding_width=whole.get("projection_dim", 768),
        codes=codes,
        codebook_width=codebook.get("hidden_size", 256) if made else None,
        pretraining_heads=heads,
        poolers=any("text_model.pooler." in name for name in names),
    )


FAMILY = Family(
    build=FLAVA,
    config=config,
    renames=(
        (r"^flava\.", ""),
        (r"^image_model\.embeddings\.cls_token", "image_encoder.embedding.class_token"),
        (r"^image_model\.embeddings\.mask_token", "image_encoder.embedding.mask_token"),
        (r"^image_model\.embeddings\.position_embeddings", "image_encoder.embedding.positions"),
        (r"^image_model\.embeddings\.patch_embeddings\.projection", "image_encoder.embedding.patches"),
        (r"^image_model\.encoder\.layer", "image_encoder.transformer.blocks"),
        (r"^image_model\.layernorm", "image_encoder.norm"),
        (r"^text_model\.embeddings\.word_embeddings", "embedding.tokens"),
        (r"^text_model\.embeddings\.position_embeddings\.weight", "embedding.positions"),
        (r"^text_model\.embeddings\.token_type_embeddings", "embedding.token_types"),
        (r"^text_model\.embeddings\.LayerNorm", "embedding.norm"),
        (r"^text_model\.encoder\.layer", "text_encoder.blocks"),
        (r"^text_model\.layernorm", "text_norm"),
        (r"^multimodal_model\.cls_token", "fusion_token"),
        (r"^multimodal_model\.encoder\.layer", "fusion.blocks"),
        (r"^multimodal_model\.layernorm", "fusion_norm"),
        (r"^(image|text)_model\.pooler\.dense", r"\1_pooler.0"),
        (r"^multimodal_model\.pooler\.dense", "fusion_pooler.0"),
        (r"^(image|text)_to_mm_projection", r"\1_to_fusion"),
        (r"^itm_head\.pooler\.dense", "match_head.0"),
        (r"^itm_head\.seq_relationship", "match_head.2"),
        (r"_head\.transform\.dense", "_head.dense"),
        (r"_head\.transform\.LayerNorm", "_head.norm"),
        (r"_head\.decoder\.", "_head.output."),
        (r"^image_codebook\.", "codebook."),
        (r"\.group\.block_", ".block_"),
        (r"\.id_path\.", ".skip."),
        (r"\.res_path\.path\.conv_1\.", ".path.1."),
        (r"\.res_path\.path\.conv_2\.", ".path.3."),
        (r"\.res_path\.path\.conv_3\.", ".path.5."),
        (r"\.res_path\.path\.conv_4\.", ".path.7."),
        (r"^codebook\.blocks\.output\.conv\.", "codebook.blocks.output.1."),
        *BLOCK,
    ),
    packed={},
    ignored=(r"\.position_ids$", r"_head\.bias$"),  # the bias is the decoder's, in older files stored twice
)
