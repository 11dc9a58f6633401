"""Published Llama checkpoints, and SmolLM2's, such as HuggingFaceTB/SmolLM2-135M-Instruct. The numbers are defaults of
that format."""

from typing import Any

from mmlearn.models.text.llama import Llama, LlamaConfig, RotaryConfig
from mmlearn.pretrained.loading import Family, Renames
from mmlearn.pretrained.settings import Settings

SCALINGS = ("default", "linear", "llama3")


def config(published: dict[str, Any], names: set[str]) -> LlamaConfig:
    """Our configuration for a published ``config.json``."""
    return language_model(Settings(published, "config.json"))


def language_model(whole: Settings, **more: Any) -> LlamaConfig:
    """The same of a language model that is a part of a published model; ``more`` are settings of Mistral and Qwen2."""
    whole.refuse("attention_bias", True)
    whole.refuse("mlp_bias", True)
    heads, words = whole.get("num_attention_heads", 32), whole.vocabulary(32_000, pad_token=None)
    end, *more_ends = end_tokens(whole)
    return LlamaConfig(
        vocab_size=words["vocab_size"],
        max_length=whole.get("max_position_embeddings", 2048),
        start_token=whole.optional("bos_token_id", 1),
        end_token=end,
        more_end_tokens=tuple(more_ends),
        pad_token=end if words["pad_token"] is None else words["pad_token"],
        pad_learns=words["pad_token"] is None,
        width=whole.get("hidden_size", 4096),
        depth=whole.get("num_hidden_layers", 32),
        num_heads=heads,
        num_kv_heads=whole.optional("num_key_value_heads", heads),
        head_width=whole.optional("head_dim"),
        mlp_width=whole.get("intermediate_size", 11_008),
        activation=whole.activation("silu"),
        norm_epsilon=whole.get("rms_norm_eps", 1e-6),
        attention_dropout=whole.get("attention_dropout", 0.0),
        tied=whole.get("tie_word_embeddings", False),
        rotary=rotary(whole),
        **more,
    )


def end_tokens(whole: Settings) -> list[int]:
    """One end token, or several, as of a model that chats."""
    said = whole.values.get("eos_token_id", 2)
    if not isinstance(said, list):
        return [whole.get("eos_token_id", 2)]
    if not said:
        raise ValueError(f"eos_token_id in {whole.where} is an empty list, and something has to end a text.")
    return [Settings({"eos_token_id": token}, whole.where).get("eos_token_id", 2) for token in said]


def rotary(whole: Settings) -> RotaryConfig:
    """Rotary positions as ``rope_parameters`` says, or in older files ``rope_theta`` and ``rope_scaling``."""
    name = "rope_parameters" if whole.values.get("rope_parameters") else "rope_scaling"
    said = whole.part(name)
    base = said.get("rope_theta", whole.get("rope_theta", 10_000.0))
    scaling = said.get("rope_type", said.get("type", "default"))
    if scaling not in SCALINGS:
        raise ValueError(f"rope_type {scaling!r} in {said.where} is not built here; known are {', '.join(SCALINGS)}.")
    said.require("partial_rotary_factor", 1.0)
    if scaling == "default":
        return RotaryConfig(base)
    if "factor" not in said.values:
        raise ValueError(f"{said.where} is of rope_type {scaling!r} and has no factor.")
    if scaling == "linear":
        return RotaryConfig(base, scaling, said.get("factor", 1.0))
    return RotaryConfig(
        base,
        scaling,
        said.get("factor", 8.0),
        said.get("low_freq_factor", 1.0),
        said.get("high_freq_factor", 4.0),
        said.get("original_max_position_embeddings", whole.get("max_position_embeddings", 2048)),
    )


def renames(theirs: str = r"^(?:model\.)?", ours: str = "") -> Renames:
    """Our names for a Llama whose published names begin so; ``theirs`` is a regular expression."""
    return (
        (rf"{theirs}embed_tokens\.", f"{ours}embedding."),
        (rf"{theirs}norm\.", f"{ours}norm."),
        (rf"{theirs}layers\.(\d+)\.", rf"{ours}blocks.\1."),
        (r"^lm_head\.", f"{ours}language_head."),
        (r"\.input_layernorm\.", ".attention_norm."),
        (r"\.post_attention_layernorm\.", ".mlp_norm."),
        (r"\.self_attn\.q_proj\.", ".attention.query."),
        (r"\.self_attn\.k_proj\.", ".attention.key."),
        (r"\.self_attn\.v_proj\.", ".attention.value."),
        (r"\.self_attn\.o_proj\.", ".attention.output."),
        (r"\.mlp\.gate_proj\.", ".mlp.gate."),
        (r"\.mlp\.up_proj\.", ".mlp.expand."),
        (r"\.mlp\.down_proj\.", ".mlp.contract."),
    )


IGNORED = (r"\.rotary_emb\.inv_freq$",)  # which older files hold
TIED = {"language_head.weight": "embedding.weight"}

FAMILY = Family(build=Llama, config=config, renames=renames(), packed={}, ignored=IGNORED, tied=TIED)
