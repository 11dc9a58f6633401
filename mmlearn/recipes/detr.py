"""The recipe of DETR: what it reads, what it learns, and how that is measured."""

import math

from mmlearn.data.fields import Batch, Image, Objects
from mmlearn.evaluation.detection import detection_precision
from mmlearn.models.vision.detr import DETR, DETRConfig
from mmlearn.recipes import Objective, Recipe


def every_class(config: DETRConfig, batch: Batch) -> float:
    """The classes' loss where all are equally likely, of all blocks that learn boxes."""
    blocks = config.decoder_depth if config.auxiliary else 1
    return blocks * config.class_weight * math.log(config.num_classes + 1)


RECIPE = Recipe(
    DETR,
    DETRConfig,
    reads=(Image(), Objects()),
    learns=Objective("detection", {"classes": every_class, "l1": None, "giou": None}, measures=(detection_precision,)),
    architecture="""
    image -> residual network -> positions [row and column] -> encoder -> decoder -> !classes and boxes, matched
    queries [learned positions] -> decoder
    """,
)
