"""Published Whisper checkpoints, such as openai/whisper-base. The numbers are defaults of that format."""

from typing import Any

from mmlearn.models.speech.whisper import Whisper, WhisperConfig
from mmlearn.models.speech.whisper_prompt import LANGUAGES
from mmlearn.pretrained.bart import BLOCK
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import Settings

WORDS_AND_TIMES = 51_765  # tokens of a published vocabulary besides its languages


def spoken(vocab_size: int) -> dict[str, Any]:
    """Which languages a vocabulary of this size has, as published ones tell by theirs; none if it is of no such size.

    Source: official code, ``is_multilingual`` and ``num_languages`` of whisper/model.py.
    """
    multilingual = vocab_size >= 51_865
    count = vocab_size - WORDS_AND_TIMES - multilingual
    languages = tuple(LANGUAGES)[:count] if 99 <= count <= len(LANGUAGES) else ()
    return dict(languages=languages, multilingual=multilingual and bool(languages))


def config(published: dict[str, Any], names: set[str]) -> WhisperConfig:
    """Our configuration for a published ``config.json``."""
    whole = Settings(published, "config.json")
    whole.refuse("scale_embedding", True)
    whole.refuse("tie_word_embeddings", False)
    whole.refuse("apply_spec_augment", True)
    vocabulary = whole.vocabulary(51_865, pad_token=50_256, optional=False)
    return WhisperConfig(
        mels=whole.get("num_mel_bins", 80),
        frames=2 * whole.get("max_source_positions", 1500),
        **vocabulary,
        max_length=whole.get("max_target_positions", 448),
        start_token=whole.get("decoder_start_token_id", 50_257),
        end_token=whole.get("eos_token_id", 50_256),
        **spoken(vocabulary["vocab_size"]),
        width=whole.get("d_model", 384),
        depth=whole.get("encoder_layers", 4),
        decoder_depth=whole.get("decoder_layers", 4),
        num_heads=whole.of_both("attention_heads", 6),
        mlp_width=whole.of_both("ffn_dim", 1536),
        activation=whole.activation("gelu", name="activation_function"),
        **whole.dropouts(("dropout", 0.0), ("attention_dropout", 0.0)),
    )


FAMILY = Family(
    build=Whisper,
    config=config,
    renames=(
        (r"^model\.", ""),
        (r"^encoder\.conv(\d)\.", r"encoder.convolution_\1."),
        (r"^encoder\.embed_positions\.weight", "encoder.positions"),
        (r"^decoder\.embed_tokens\.", "decoder.embedding.tokens."),
        (r"^decoder\.embed_positions\.weight", "decoder.embedding.positions"),
        (r"^(encoder|decoder)\.layer_norm\.", r"\1.norm."),
        (r"\.layers\.", ".transformer.blocks."),
        *BLOCK,
    ),
    packed={},
    ignored=(r"^proj_out\.weight$",),  # the token table again
)
