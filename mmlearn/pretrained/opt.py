"""Published OPT checkpoints, such as facebook/opt-125m. The numbers are defaults of that format."""

from typing import Any

from mmlearn.models.text.opt import OPT, OPTConfig
from mmlearn.pretrained.clip import BLOCK
from mmlearn.pretrained.loading import Family, Renames
from mmlearn.pretrained.settings import Settings


def config(published: dict[str, Any], names: set[str]) -> OPTConfig:
    """Our configuration for a published ``config.json``."""
    return language_model(Settings(published, "config.json"))


def language_model(whole: Settings) -> OPTConfig:
    """The same of a language model that is a part of a published model."""
    whole.refuse("tie_word_embeddings", False)
    whole.refuse("_remove_final_layer_norm", True)
    whole.require("enable_bias", True)
    whole.require("layer_norm_elementwise_affine", True)
    width = whole.get("hidden_size", 768)
    narrow = whole.optional("word_embed_proj_dim", width)
    return OPTConfig(
        **whole.vocabulary(50_272, pad_token=1, optional=False),
        max_length=whole.get("max_position_embeddings", 2048),
        start_token=whole.get("bos_token_id", 2),
        end_token=whole.get("eos_token_id", 2),
        width=width,
        depth=whole.get("num_hidden_layers", 12),
        num_heads=whole.get("num_attention_heads", 12),
        mlp_width=whole.get("ffn_dim", 3072),
        activation=whole.activation("relu", name="activation_function"),
        norm_first=whole.get("do_layer_norm_before", True),
        embedding_width=None if narrow == width else narrow,
        **whole.dropouts(("dropout", 0.1), ("attention_dropout", 0.0)),
    )


def renames(theirs: str = r"^(?:model\.)?decoder\.", ours: str = "") -> Renames:
    """Our names for an OPT whose published names begin so; ``theirs`` is a regular expression."""
    return (
        (rf"{theirs}embed_tokens\.", f"{ours}embedding.tokens."),
        (rf"{theirs}embed_positions\.weight", f"{ours}embedding.positions"),
        (rf"{theirs}project_in\.", f"{ours}embedding.projection."),
        (rf"{theirs}project_out\.", f"{ours}output_projection."),
        (rf"{theirs}final_layer_norm\.", f"{ours}norm."),
        (rf"{theirs}layers\.", f"{ours}transformer.blocks."),
        (r"\.self_attn_layer_norm", ".attention_norm"),
        (r"\.(\d+)\.final_layer_norm", r".\1.mlp_norm"),  # of a block
        (r"\.fc1\.", ".mlp.expand."),
        (r"\.fc2\.", ".mlp.contract."),
        *BLOCK,
    )


TIED = {"lm_head.weight": "embedding.tokens.weight"}

FAMILY = Family(build=OPT, config=config, renames=renames(), packed={}, ignored=(), tied=TIED)
