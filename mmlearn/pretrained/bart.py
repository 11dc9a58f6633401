"""Published BART checkpoints, such as facebook/bart-base. The numbers are defaults of that format."""

from typing import Any

from mmlearn.models.text.bart import BART, BARTConfig
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import Settings


def config(published: dict[str, Any], names: set[str]) -> BARTConfig:
    """Our configuration for a published ``config.json``."""
    whole = Settings(published, "config.json")
    whole.require("is_encoder_decoder", True)
    whole.refuse("scale_embedding", True)
    whole.refuse("tie_word_embeddings", False)
    return BARTConfig(
        **whole.vocabulary(50_265, pad_token=1, optional=False),
        max_length=whole.get("max_position_embeddings", 1024),
        start_token=whole.get("bos_token_id", 0),
        end_token=whole.get("eos_token_id", 2),
        decoder_start_token=whole.get("decoder_start_token_id", 2),
        forced_end_token=whole.optional("forced_eos_token_id", 2),
        width=whole.get("d_model", 1024),
        depth=whole.get("encoder_layers", 12),
        decoder_depth=whole.get("decoder_layers", 12),
        num_heads=whole.of_both("attention_heads", 16),
        mlp_width=whole.of_both("ffn_dim", 4096),
        activation=whole.activation("gelu", name="activation_function"),
        dropout=whole.get("dropout", 0.1),
        attention_dropout=whole.get("attention_dropout", 0.0),
    )


BLOCK = (  # what a block of an encoder and a decoder calls its parts
    (r"\.self_attn\.", ".attention."),
    (r"\.self_attn_layer_norm\.", ".attention_norm."),
    (r"\.encoder_attn\.", ".cross_attention."),
    (r"\.encoder_attn_layer_norm\.", ".cross_attention_norm."),
    (r"attention\.q_proj\.", "attention.query."),
    (r"attention\.k_proj\.", "attention.key."),
    (r"attention\.v_proj\.", "attention.value."),
    (r"attention\.out_proj\.", "attention.output."),
    (r"\.fc1\.", ".mlp.expand."),
    (r"\.fc2\.", ".mlp.contract."),
    (r"\.final_layer_norm\.", ".mlp_norm."),
)
FAMILY = Family(
    build=BART,
    config=config,
    renames=(
        (r"^model\.", ""),
        (r"^final_logits_bias", "output_bias"),
        (r"^shared\.", "embedding."),
        (r"\.embed_positions\.weight", ".positions"),
        (r"\.layernorm_embedding\.", ".embedding_norm."),
        (r"\.layers\.", ".transformer.blocks."),
        *BLOCK,
    ),
    packed={},
    ignored=(r"^lm_head\.weight$", r"coder\.embed_tokens\.weight$"),  # the token table again
    fresh=("output_bias",),  # files without a language head lack it
)
