"""Checkpoints of nanoVLM, such as lusxvr/nanoVLM-230M-8k: a SigLIP's tower, without its head, and a SmolLM2.

Their ``config.json`` names no model_type; its names begin with ``vit_``, ``lm_`` and ``mp_``.

Layout: https://github.com/huggingface/nanoVLM, models/. Patches are shuffled as in Idefics3. Not as there: beyond
``lm_max_position_embeddings`` rotary positions are not stretched, but refused, and no image is cut into tiles.
"""

from typing import Any

from mmlearn.layers import ImageEncoderConfig
from mmlearn.models.bridges.vlm import VLM, VLMConfig
from mmlearn.models.bridges.vlm_sizes import check_sizes
from mmlearn.pretrained import llama
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import Settings

SIZES = dict(hidden_size="hidden_dim", num_hidden_layers="n_blocks", num_attention_heads="n_heads")
SIZES |= dict(intermediate_size="inter_dim")
TOWER = SIZES | dict(image_size="img_size", patch_size="patch_size", layer_norm_eps="ln_eps")
LANGUAGE = SIZES | dict(num_key_value_heads="n_kv_heads", rms_norm_eps="rms_eps", rope_theta="re_base")
LANGUAGE |= dict(vocab_size="vocab_size", max_position_embeddings="max_position_embeddings")
LANGUAGE |= dict(tie_word_embeddings="tie_weights")
# <|endoftext|>, and of a model that was taught turns <|im_end|>, in all of SmolLM's tokenizers.
ENDS = {False: 0, True: 2}


def config(published: dict[str, Any], names: set[str]) -> VLMConfig:
    """Our configuration for a ``config.json`` of nanoVLM."""
    whole = Settings(published, "config.json")
    whole.refuse("vit_cls_flag", True)  # patches would not be read
    for name, value in (("vit_dropout", 0.0), ("lm_dropout", 0.0), ("lm_attn_scaling", 1.0)):
        whole.require(name, value)
    image, text = part(published, "vit", TOWER), part(published, "lm", LANGUAGE)
    more_tokens = list(whole.get("vlm_extra_tokens", {}))
    if "image_token" not in more_tokens:
        raise ValueError(
            "config.json has no image_token in vlm_extra_tokens: first versions of nanoVLM are not built here."
        )
    end = ENDS["Instruct" in str(published.get("lm_tokenizer"))]
    text.values |= dict(eos_token_id=end, pad_token_id=end, bos_token_id=None)
    built = VLMConfig(
        image_encoder=ImageEncoderConfig(
            image_size=image.get("image_size", 512),
            patch_size=image.get("patch_size", 16),
            **image.transformer(
                activation="gelu_pytorch_tanh", norm_epsilon=1e-6, dropout=None, attention_dropout=("dropout", 0.0)
            ),
            class_token=False,
        ),
        language_model=llama.language_model(text),
        image_token=whole.get("lm_base_vocab_size", 49_152) + more_tokens.index("image_token"),  # behind SmolLM2's
        shuffle=whole.get("mp_pixel_shuffle_factor", 4),
        projector_layers=1,
        projector_bias=False,
    )
    check_sizes(built)
    whole.require("mp_image_token_length", built.num_image_tokens)
    return built


def part(published: dict[str, Any], prefix: str, names: dict[str, str]) -> Settings:
    """The settings of the tower or of the language model, under the names that Transformers has for them."""
    given = {ours: f"{prefix}_{theirs}" for ours, theirs in names.items()}
    if missing := [name for name in given.values() if name not in published]:
        raise ValueError(f"config.json does not say {missing[0]}.")
    return Settings({ours: published[name] for ours, name in given.items()}, f"config.json (there as {prefix}_…)")


FAMILY = Family(
    build=VLM,
    config=config,
    renames=(
        (r"^decoder\.token_embedding\.", "language_model.embedding."),
        (r"^decoder\.head\.", "language_model.language_head."),
        (r"^decoder\.", "language_model."),
        (r"^MP\.proj\.", "projector.first."),
        (r"^vision_encoder\.patch_embedding\.conv\.", "image_encoder.embedding.patches."),
        (r"^vision_encoder\.patch_embedding\.position_embedding$", "image_encoder.embedding.positions"),
        (r"^vision_encoder\.layer_norm\.", "image_encoder.norm."),
        (r"^vision_encoder\.blocks\.", "image_encoder.transformer.blocks."),
        (r"\.(?:norm|ln)1\.", ".attention_norm."),
        (r"\.(?:norm|ln)2\.", ".mlp_norm."),
        (r"\.attn\.q_proj\.", ".attention.query."),
        (r"\.attn\.k_proj\.", ".attention.key."),
        (r"\.attn\.v_proj\.", ".attention.value."),
        (r"\.attn\.out_proj\.", ".attention.output."),
        (r"\.mlp\.gate_proj\.", ".mlp.gate."),
        (r"\.mlp\.(?:up_proj|fc1)\.", ".mlp.expand."),
        (r"\.mlp\.(?:down_proj|fc2)\.", ".mlp.contract."),
    ),
    packed={r"(.*)\.attn\.qkv_proj": tuple(rf"\1.attention.{one}" for one in ("query", "key", "value"))},
    ignored=(r"^decoder\.rotary_embd\.inv_freq$",),  # which its base says
    # Of a token table and a head that are one, safetensors keeps the head.
    tied={f"language_model.{name}": f"language_model.{twin}" for name, twin in llama.TIED.items()},
)
