"""Published HuBERT checkpoints, such as facebook/hubert-base-ls960, bare or with a head for texts.

They come without the vectors of their clusters.
"""

from typing import Any

from mmlearn.models.speech.hubert import HuBERT, HuBERTConfig
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import Settings
from mmlearn.pretrained.wav2vec2 import SPEECH, speech, texts


def config(published: dict[str, Any], names: set[str]) -> HuBERTConfig:
    """Our configuration for a published ``config.json``, with the head that the checkpoint has."""
    whole = Settings(published, "config.json")
    return HuBERTConfig(speech=speech(whole), clusters=0, **texts(whole, names))


FAMILY = Family(build=HuBERT, config=config, renames=SPEECH, packed={}, ignored=(), fresh=("steps",))
