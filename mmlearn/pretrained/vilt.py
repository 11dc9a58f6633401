"""Published ViLT checkpoints, such as dandelin/vilt-b32-finetuned-vqa. The numbers are defaults of that format."""

from typing import Any

from mmlearn.models.fusion.vilt import ViLT, ViLTConfig
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import VIT_DROPOUTS, Settings
from mmlearn.pretrained.vit import BLOCK


def config(published: dict[str, Any], names: set[str]) -> ViLTConfig:
    """Our configuration for a published ``config.json``, with the heads that the checkpoint has."""
    whole = Settings(published, "config.json")
    whole.refuse("qkv_bias", False)
    whole.require("num_channels", 3)
    whole.require("modality_type_vocab_size", 2)  # 3 is for pairs of pictures
    if whole.values.get("max_image_length", -1) not in range(-(2**31), 0):
        raise ValueError(
            f"max_image_length = {whole.values['max_image_length']!r} in {whole.where} is not built here: it takes "
            "patches at random where there are more. Set it to -1 to read all."
        )
    answers = any(name.startswith("classifier.") for name in names)
    return ViLTConfig(
        **whole.vocabulary(30_522, pad_token=None),
        max_length=whole.get("max_position_embeddings", 40),
        token_types=whole.get("type_vocab_size", 2),
        image_size=whole.size("image_size", 384),
        patch_size=whole.get("patch_size", 32),
        **whole.transformer(**VIT_DROPOUTS),
        language_head=any(name.startswith("mlm_score.") for name in names),
        tied="mlm_score.decoder.weight" not in names,
        match_outputs=1 if any(name.startswith("rank_output.") for name in names) else 0,
        answers=whole.classes() if answers else 0,
    )


FAMILY = Family(
    build=ViLT,
    config=config,
    renames=(
        (r"^vilt\.", ""),
        (r"^embeddings\.text_embeddings\.word_embeddings", "text_embedding.tokens"),
        (r"^embeddings\.text_embeddings\.position_embeddings\.weight", "text_embedding.positions"),
        (r"^embeddings\.text_embeddings\.token_type_embeddings", "text_embedding.token_types"),
        (r"^embeddings\.text_embeddings\.LayerNorm", "text_embedding.norm"),
        (r"^embeddings\.cls_token", "image_embedding.class_token"),
        (r"^embeddings\.position_embeddings", "image_embedding.positions"),
        (r"^embeddings\.patch_embeddings\.projection", "image_embedding.patches"),
        (r"^embeddings\.token_type_embeddings", "type_embeddings"),
        (r"^encoder\.layer", "transformer.blocks"),
        *BLOCK,
        (r"^layernorm", "norm"),
        (r"^pooler\.dense", "pooler.0"),
        (r"^mlm_score\.transform\.dense", "language_head.dense"),
        (r"^mlm_score\.transform\.LayerNorm", "language_head.norm"),
        (r"^mlm_score\.(decoder\.)?bias", "language_head.bias"),
        (r"^mlm_score\.decoder\.weight", "token_table.weight"),
        (r"^rank_output", "match_head"),
        (r"^classifier", "answer_head.classifier"),
    ),
    packed={},
    ignored=(r"\.position_ids$",),
)
