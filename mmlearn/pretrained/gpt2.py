"""Published GPT-2 checkpoints, such as openai-community/gpt2. The numbers are defaults of that format."""

from typing import Any

from mmlearn.models.text.gpt2 import GPT2, GPT2Config
from mmlearn.pretrained.loading import Family, Renames
from mmlearn.pretrained.settings import Settings


def config(published: dict[str, Any], names: set[str]) -> GPT2Config:
    """Our configuration for a published ``config.json``."""
    return language_model(Settings(published, "config.json"))


def language_model(whole: Settings) -> GPT2Config:
    """The same of a language model that is a part of a published model."""
    whole.refuse("add_cross_attention", True)
    whole.refuse("scale_attn_by_inverse_layer_idx", True)
    whole.refuse("tie_word_embeddings", False)
    whole.require("scale_attn_weights", True)
    dropout = whole.get("resid_pdrop", 0.1)
    if whole.get("embd_pdrop", 0.1) != dropout:
        raise ValueError(f"embd_pdrop and resid_pdrop in {whole.where} should be equal here.")
    pad = whole.optional("pad_token_id", None)
    return GPT2Config(
        vocab_size=whole.get("vocab_size", 50_257),
        max_length=whole.get("n_positions", 1024),
        start_token=whole.get("bos_token_id", 50_256),
        end_token=whole.get("eos_token_id", 50_256),
        pad_token=whole.get("eos_token_id", 50_256) if pad is None else pad,
        width=whole.get("n_embd", 768),
        depth=whole.get("n_layer", 12),
        num_heads=whole.get("n_head", 12),
        mlp_width=whole.optional("n_inner"),
        activation=whole.activation("gelu_new", name="activation_function"),
        norm_epsilon=whole.get("layer_norm_epsilon", 1e-5),
        dropout=dropout,
        attention_dropout=whole.get("attn_pdrop", 0.1),
    )


def renames(theirs: str = r"^(?:transformer\.)?", ours: str = "") -> Renames:
    """Our names for a GPT-2 whose published names begin so; ``theirs`` is a regular expression."""
    return (
        (rf"{theirs}wte\.", f"{ours}embedding.tokens."),
        (rf"{theirs}wpe\.weight", f"{ours}embedding.positions"),
        (rf"{theirs}ln_f\.", f"{ours}norm."),
        (rf"{theirs}h\.", f"{ours}transformer.blocks."),
        (r"\.ln_1\.", ".attention_norm."),
        (r"\.ln_2\.", ".mlp_norm."),
        (r"\.attn\.c_attn\.", ".attention.qkv."),
        (r"\.attn\.c_proj\.", ".attention.output."),
        (r"\.mlp\.c_fc\.", ".mlp.expand."),
        (r"\.mlp\.c_proj\.", ".mlp.contract."),
    )


PACKED = {r"((?:.*\.)?transformer\.blocks\.\d+\.attention)\.qkv": (r"\1.query", r"\1.key", r"\1.value")}
TRANSPOSED = (r"\.c_(attn|proj|fc)\.weight$",)  # released as (inputs, outputs)
CAUSAL_MASKS = r"\.attn\.(masked_)?bias$"  # which older files hold
IGNORED = (CAUSAL_MASKS, r"(^|\.)lm_head\.weight$")  # the language head is the token table

FAMILY = Family(build=GPT2, config=config, renames=renames(), packed=PACKED, ignored=IGNORED, transposed=TRANSPOSED)
