"""Published data2vec checkpoints for pictures, such as facebook/data2vec-vision-base: BEiT's layout."""

from typing import Any

from mmlearn.models.unified.data2vec_vision import Data2VecVision, Data2VecVisionConfig
from mmlearn.pretrained.beit import RELATIVE, relative_encoder
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import Settings


def config(published: dict[str, Any], names: set[str]) -> Data2VecVisionConfig:
    """Our configuration for a published ``config.json``, with the classifier if the checkpoint has it."""
    whole = Settings(published, "config.json")
    classes = whole.classes(learned=True) if any(name.startswith("classifier.") for name in names) else 0
    return Data2VecVisionConfig(image=relative_encoder(whole), num_classes=classes, pretrain=False)


FAMILY = Family(
    build=Data2VecVision,
    config=config,
    renames=(*RELATIVE, (r"^image_encoder\.", "encoder.")),
    packed={},
    ignored=(r"relative_position_index$",),
    fresh=("steps",),
)
