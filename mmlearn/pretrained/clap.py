"""Published CLAP checkpoints, such as laion/clap-htsat-unfused. The numbers are defaults of that format.

Checkpoints with feature fusion (``enable_fusion``), such as laion/clap-htsat-fused, are refused.
"""

from typing import Any

from mmlearn.layers import BERTEncoderConfig
from mmlearn.models.audio.clap import CLAP, CLAPConfig, HTSATConfig
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import BERT_DROPOUTS, Settings


def config(published: dict[str, Any], names: set[str]) -> CLAPConfig:
    """Our configuration for a published ``config.json``."""
    whole = Settings(published, "config.json")
    audio, text = whole.part("audio_config"), whole.part("text_config")
    audio.require("enable_fusion", False)
    audio.require("qkv_bias", True)
    audio.require("enable_patch_layer_norm", True)
    audio.require("flatten_patch_embeds", True)
    audio.require("patch_embed_input_channels", 1)
    audio.require("mlp_ratio", 4.0)
    audio.require("layer_norm_eps", 1e-5)
    audio.require("drop_path_rate", 0.0)
    text.require("type_vocab_size", 1)
    whole.require("projection_hidden_act", "relu")
    patch_size, mels, width = (audio.get(*pair) for pair in AUDIO_SIZES)
    audio.require("patch_stride", [patch_size, patch_size])
    depths = _stages(audio, "depths", [2, 2, 6, 2])
    audio.require("hidden_size", width * 2 ** (len(depths) - 1))
    pieces, rest = divmod(audio.get("spec_size", 256), mels)
    if rest or not pieces:
        raise ValueError(f"spec_size of audio_config should be a multiple of num_mel_bins {mels}.")
    vocabulary = text.vocabulary(50_265, pad_token=1, optional=False)
    first_position = vocabulary["pad_token"] + 1
    return CLAPConfig(
        audio=HTSATConfig(
            width,
            depths,
            _stages(audio, "num_attention_heads", [4, 8, 16, 32]),
            window=audio.get("window_size", 8),
            activation=audio.activation("gelu"),
            **audio.dropouts(("hidden_dropout_prob", 0.1), ("attention_probs_dropout_prob", 0.0)),
            mels=mels,
            pieces=pieces,
            patch_size=patch_size,
        ),
        text=BERTEncoderConfig(
            **text.transformer(**BERT_DROPOUTS),
            **vocabulary,
            max_length=text.get("max_position_embeddings", 514) - first_position,
            first_position=first_position,
            token_types=1,
        ),
        embedding_width=whole.get("projection_dim", 512),
    )


AUDIO_SIZES = (("patch_size", 4), ("num_mel_bins", 64), ("patch_embeds_hidden_size", 96))


def _stages(audio: Settings, name: str, default: list[int]) -> tuple[int, ...]:
    """One number for each stage."""
    values = audio.get(name, default)
    if not 1 <= len(values) <= 8 or not all(type(value) is int and 1 <= value <= 1000 for value in values):
        raise ValueError(f"{name} in {audio.where} should be 1 to 8 numbers up to 1000, like {default}, not {values}.")
    return tuple(values)


FAMILY = Family(
    build=CLAP,
    config=config,
    renames=(
        (r"^logit_scale_a", "audio_logit_scale"),
        (r"^logit_scale_t", "text_logit_scale"),
        (r"_projection\.linear1", "_projection.0"),
        (r"_projection\.linear2", "_projection.2"),
        (r"^audio_model\.audio_encoder", "audio_encoder"),
        (r"\.batch_norm", ".mel_norm"),
        (r"\.patch_embed\.proj", ".patches"),
        (r"\.patch_embed\.norm", ".patch_norm"),
        (r"\.layers\.(\d+)\.blocks", r".swin.stages.\1"),
        (r"\.layers\.(\d+)\.downsample", r".swin.merging.\1"),
        (r"\.attention\.self\.relative_position_bias_table", ".position_bias"),
        (r"\.layernorm_before", ".attention_norm"),
        (r"\.layernorm_after", ".mlp_norm"),
        (r"^text_model\.embeddings\.word_embeddings", "text_encoder.embedding.tokens"),
        (r"^text_model\.embeddings\.position_embeddings\.weight", "text_encoder.embedding.positions"),
        (r"^text_model\.embeddings\.token_type_embeddings", "text_encoder.embedding.token_types"),
        (r"^text_model\.embeddings\.LayerNorm", "text_encoder.embedding.norm"),
        (r"^text_model\.pooler\.dense", "text_encoder.pooler.0"),
        (r"^text_model\.encoder\.layer", "text_encoder.transformer.blocks"),
        (r"\.attention\.self", ".attention"),
        (r"\.attention\.output\.dense", ".attention.output"),
        (r"\.attention\.output\.LayerNorm", ".attention_norm"),
        (r"\.intermediate\.dense", ".mlp.expand"),
        (r"(\.\d+)\.output\.dense", r"\1.mlp.contract"),
        (r"(\.\d+)\.output\.LayerNorm", r"\1.mlp_norm"),
    ),
    packed={},
    ignored=(r"\.position_ids$", r"\.token_type_ids$", r"\.relative_position_index$", r"\.num_batches_tracked$"),
)
