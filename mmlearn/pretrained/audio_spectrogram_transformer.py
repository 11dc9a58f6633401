"""Published AST checkpoints, such as MIT/ast-finetuned-audioset-10-10-0.4593. Numbers are defaults of that format."""

from typing import Any

from mmlearn.models.audio.ast import AST, ASTConfig
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import VIT_DROPOUTS, Settings
from mmlearn.pretrained.vit import BLOCK


def config(published: dict[str, Any], names: set[str]) -> ASTConfig:
    """Our configuration for a published ``config.json``, with the classifier if the checkpoint has one."""
    whole = Settings(published, "config.json")
    whole.refuse("qkv_bias", False)
    return ASTConfig(
        mels=whole.get("num_mel_bins", 128),
        frames=whole.get("max_length", 1024),
        patch_size=whole.get("patch_size", 16),
        frequency_stride=whole.get("frequency_stride", 10),
        time_stride=whole.get("time_stride", 10),
        **whole.transformer(**VIT_DROPOUTS),
        num_classes=whole.classes(learned=True) if any(name.startswith("classifier.") for name in names) else 0,
    )


FAMILY = Family(
    build=AST,
    config=config,
    renames=(
        (r"^audio_spectrogram_transformer\.", ""),
        (r"^embeddings\.cls_token", "embedding.class_token"),
        (r"^embeddings\.distillation_token", "embedding.distillation_token"),
        (r"^embeddings\.position_embeddings", "embedding.positions"),
        (r"^embeddings\.patch_embeddings\.projection", "embedding.patches"),
        (r"^encoder\.layer", "transformer.blocks"),
        *BLOCK,
        (r"^layernorm", "norm"),
        (r"^classifier\.layernorm", "classifier.0"),
        (r"^classifier\.dense", "classifier.1"),
    ),
    packed={},
    ignored=(),
)
