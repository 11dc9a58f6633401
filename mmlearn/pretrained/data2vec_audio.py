"""Published data2vec checkpoints for speech, such as facebook/data2vec-audio-base, bare or with a head for texts.

The numbers are defaults of that format.
"""

from dataclasses import replace
from typing import Any

from mmlearn.models.unified.data2vec_audio import Data2VecAudio, Data2VecAudioConfig
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import Settings
from mmlearn.pretrained.wav2vec2 import SPEECH, speech, texts


def config(published: dict[str, Any], names: set[str]) -> Data2VecAudioConfig:
    """Our configuration for a published ``config.json``, with the head that the checkpoint has."""
    whole = Settings(published, "config.json")
    kernel = whole.get("conv_pos_kernel_size", 19)
    return Data2VecAudioConfig(
        speech=replace(speech(whole), convolution_norm="layer", position_kernel=kernel, norm_first=False),
        position_layers=whole.get("num_conv_pos_embeddings", 5),
        pretrain=False,
        **texts(whole, names),
    )


FAMILY = Family(
    build=Data2VecAudio,
    config=config,
    renames=(
        (r"^data2vec_audio\.", ""),
        (r"^encoder\.pos_conv_embed\.layers\.(\d+)\.conv\.", r"speech.context.positions.convolutions.\1."),
        *SPEECH,
        (r"^speech\.", "encoder."),
    ),
    packed={},
    ignored=(),
    fresh=("steps",),
)
