"""Published wav2vec 2.0 checkpoints, such as facebook/wav2vec2-base, for pretraining, or with a head for texts.

The numbers are defaults of that format. HuBERT is published in the same format under another name.
"""

from typing import Any

from mmlearn.models.speech.encoder import SpeechEncoderConfig
from mmlearn.models.speech.wav2vec2 import Wav2Vec2, Wav2Vec2Config
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import Settings

CONVOLUTIONS = {"conv_dim": (512,) * 7, "conv_kernel": (10, 3, 3, 3, 3, 2, 2), "conv_stride": (5, 2, 2, 2, 2, 2, 2)}


def speech(whole: Settings) -> SpeechEncoderConfig:
    """The encoder that wav2vec 2.0 and HuBERT have in common."""
    whole.require("feat_extract_activation", "gelu")
    whole.require("add_adapter", False)
    whole.refuse("feat_proj_layer_norm", False)
    whole.refuse("conv_pos_batch_norm", True)
    if whole.values.get("adapter_attn_dim") is not None:
        raise ValueError(f"adapter_attn_dim in {whole.where} is not built here: its blocks have adapters.")
    channels, kernels, strides = (_numbers(whole, name, default) for name, default in CONVOLUTIONS.items())
    whole.require("num_feat_extract_layers", len(channels))
    return SpeechEncoderConfig(
        channels=channels,
        kernels=kernels,
        strides=strides,
        convolution_norm=whole.get("feat_extract_norm", "group"),
        convolution_bias=whole.get("conv_bias", False),
        position_kernel=whole.get("num_conv_pos_embeddings", 128),
        position_groups=whole.get("num_conv_pos_embedding_groups", 16),
        **whole.transformer(
            norm_epsilon=1e-5, dropout=("hidden_dropout", 0.1), attention_dropout=("attention_dropout", 0.1)
        ),
        norm_first=whole.get("do_stable_layer_norm", False),
        spec_augment=whole.get("apply_spec_augment", True),
    )


def _numbers(whole: Settings, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """A list with a number for each convolution."""
    values = whole.values.get(name, list(default))
    if not isinstance(values, list) or not all(type(value) is int and 1 <= value < 2**16 for value in values):
        raise ValueError(f"{name} in {whole.where} should be a list of numbers like {list(default)}, not {values!r}.")
    return tuple(values)


def texts(whole: Settings, names: set[str]) -> dict[str, Any]:
    """The head for texts where the checkpoint has one; its padding token is the blank."""
    head = any(name.startswith("lm_head.") for name in names)
    if not head:
        return {}
    vocabulary = whole.vocabulary(32, pad_token=0, optional=False)
    blank = vocabulary.pop("pad_token")
    return dict(**vocabulary, blank=blank, ctc_reduction=whole.get("ctc_loss_reduction", "sum"))


def config(published: dict[str, Any], names: set[str]) -> Wav2Vec2Config:
    """Our configuration for a published ``config.json``, with the heads that the checkpoint has."""
    whole = Settings(published, "config.json")
    quantiser = any(name.startswith("quantizer.") for name in names)
    return Wav2Vec2Config(
        speech=speech(whole),
        codebooks=whole.get("num_codevector_groups", 2) if quantiser else 0,
        entries=whole.get("num_codevectors_per_group", 320),
        code_width=whole.get("codevector_dim", 256),
        embedding_width=whole.get("proj_codevector_dim", 256),
        distractors=whole.get("num_negatives", 100),
        temperature=whole.get("contrastive_logits_temperature", 0.1),
        diversity_weight=whole.get("diversity_loss_weight", 0.1),
        **texts(whole, names),
    )


SPEECH = (
    (r"^(wav2vec2|hubert)\.", ""),
    (r"^feature_extractor\.conv_layers\.(\d+)\.conv\.", r"speech.feature_encoder.convolutions.\1."),
    (r"^feature_extractor\.conv_layers\.(\d+)\.layer_norm\.", r"speech.feature_encoder.norms.\1."),
    (r"^feature_projection\.layer_norm\.", "speech.feature_norm."),
    (r"^feature_projection\.", "speech."),
    (r"^masked_spec_embed$", "speech.mask_embedding"),
    (r"^encoder\.pos_conv_embed\.conv\.bias$", "speech.context.positions.bias"),
    (
        r"^encoder\.pos_conv_embed\.conv\.(weight_g|parametrizations\.weight\.original0)$",
        "speech.context.positions.length",
    ),
    (
        r"^encoder\.pos_conv_embed\.conv\.(weight_v|parametrizations\.weight\.original1)$",
        "speech.context.positions.direction",
    ),
    (r"^encoder\.layer_norm\.", "speech.context.norm."),
    (r"^encoder\.layers\.", "speech.context.transformer.blocks."),
    (r"\.attention\.q_proj\.", ".attention.query."),
    (r"\.attention\.k_proj\.", ".attention.key."),
    (r"\.attention\.v_proj\.", ".attention.value."),
    (r"\.attention\.out_proj\.", ".attention.output."),
    (r"(blocks\.\d+)\.layer_norm\.", r"\1.attention_norm."),
    (r"(blocks\.\d+)\.final_layer_norm\.", r"\1.mlp_norm."),
    (r"\.feed_forward\.intermediate_dense\.", ".mlp.expand."),
    (r"\.feed_forward\.output_dense\.", ".mlp.contract."),
    (r"^lm_head\.", "ctc_head.output."),
)

FAMILY = Family(
    build=Wav2Vec2,
    config=config,
    renames=(
        *SPEECH,
        (r"^quantizer\.codevectors$", "quantiser.entries"),
        (r"^quantizer\.weight_proj\.", "quantiser.logits."),
        (r"^project_hid\.", "context_projection."),
        (r"^project_q\.", "target_projection."),
    ),
    packed={},
    ignored=(),
    fresh=("steps",),
)
