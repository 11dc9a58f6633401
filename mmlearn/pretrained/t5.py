"""Published T5 checkpoints, such as google-t5/t5-small and google/t5-v1_1-small. The numbers are defaults of that
format."""

from typing import Any

from mmlearn.models.text.t5 import T5, T5Config
from mmlearn.pretrained.loading import Family, Renames
from mmlearn.pretrained.settings import ACTIVATIONS, Settings


def config(published: dict[str, Any], names: set[str]) -> T5Config:
    """Our configuration for a published ``config.json``; the file tells whether there is a language head of its own."""
    return language_model(Settings(published, "config.json"), names)


def language_model(whole: Settings, names: set[str]) -> T5Config:
    """The same of a language model that is a part of a published model, with the names of its own tensors."""
    whole.require("is_encoder_decoder", True)
    tied = "lm_head.weight" not in names
    # The format divides what a head reads where the settings say that the head is the table.
    divided = whole.get("scale_decoder_outputs", whole.get("tie_word_embeddings", True))
    if tied != divided and "shared.weight" in names:
        raise ValueError(
            f"tie_word_embeddings or scale_decoder_outputs in {whole.where} contradicts the file: a language head of "
            "its own (lm_head.weight) reads what is not divided by the root of d_model, and the token table what is."
        )
    start = whole.optional("decoder_start_token_id", 0)
    vocabulary = whole.vocabulary(32_128, pad_token=0)
    if start != (pad := vocabulary["pad_token"]):
        raise ValueError(f"decoder_start_token_id {start} in {whole.where} is not pad_token_id {pad}, and here it is.")
    kind = whole.get("feed_forward_proj", "relu")
    activation = whole.get("dense_act_fn", "gelu_new" if kind == "gated-gelu" else kind.split("-")[-1])
    if activation not in ACTIVATIONS or kind.count("-") != kind.startswith("gated-"):
        what = f"feed_forward_proj {kind!r} or dense_act_fn {activation!r} in {whole.where}"
        raise ValueError(f"{what} is not built here.")
    return T5Config(
        **vocabulary,
        end_token=whole.get("eos_token_id", 1),
        width=whole.get("d_model", 512),
        depth=whole.get("num_layers", 6),
        decoder_depth=whole.optional("num_decoder_layers"),
        num_heads=whole.get("num_heads", 8),
        head_width=whole.get("d_kv", 64),
        mlp_width=whole.get("d_ff", 2048),
        activation=ACTIVATIONS[activation],
        gated=whole.get("is_gated_act", kind.startswith("gated-")),
        tied=tied,
        position_buckets=whole.get("relative_attention_num_buckets", 32),
        max_distance=whole.get("relative_attention_max_distance", 128),
        norm_epsilon=whole.get("layer_norm_epsilon", 1e-6),
        dropout=whole.get("dropout_rate", 0.1),
    )


def renames(whole: str = "") -> Renames:
    """Our names for a T5 that is a part called ``whole``, such as ``language_model.``."""
    return ((rf"^{whole}shared\.", f"{whole}embedding."), (rf"^{whole}lm_head\.", f"{whole}language_head."), *BLOCK)


BLOCK = (
    (r"\.block\.0\.layer\.0\.SelfAttention\.relative_attention_bias", ".relative_bias"),
    (r"\.block\.", ".blocks."),
    (r"\.layer\.0\.SelfAttention\.", ".attention."),
    (r"\.layer\.0\.layer_norm", ".attention_norm"),
    (r"\.layer\.1\.EncDecAttention\.", ".cross_attention."),
    (r"(decoder\.blocks\.\d+)\.layer\.1\.layer_norm", r"\1.cross_attention_norm"),
    (r"\.layer\.[12]\.DenseReluDense\.", ".mlp."),
    (r"\.layer\.[12]\.layer_norm", ".mlp_norm"),
    (r"attention\.q\.", "attention.query."),
    (r"attention\.k\.", "attention.key."),
    (r"attention\.v\.", "attention.value."),
    (r"attention\.o\.", "attention.output."),
    (r"\.mlp\.wi_1\.", ".mlp.gate."),
    (r"\.mlp\.wi(_0)?\.", ".mlp.expand."),
    (r"\.mlp\.wo\.", ".mlp.contract."),
    (r"\.final_layer_norm\.", ".norm."),
)
UNREAD = r"\.EncDecAttention\.relative_attention_bias"  # a bias that older files have and nothing reads
TABLE = r"^(en|de)coder\.embed_tokens\."  # the token table again

FAMILY = Family(build=T5, config=config, renames=renames(), packed={}, ignored=(TABLE, UNREAD))
