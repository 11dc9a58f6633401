"""The recipe of UniT: what it reads, what it learns, and how that is measured."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mmlearn.data.fields import Batch, Image, Labels, Objects, Tokens
from mmlearn.evaluation.detection import detection_precision
from mmlearn.evaluation.measures import Rows, majority_share, row
from mmlearn.models.many_tasks.unit import UniT, UniTConfig
from mmlearn.recipes import ITM, VQA, Objective, OneOf, Recipe, ln


def every_class(config: UniTConfig, batch: Batch) -> float:
    """The classes' loss where all are equally likely, of all blocks of the decoder."""
    return config.decoder.depth * math.log(config.num_classes + 1)


def relation_accuracy(run: Any, samples: Sequence[Any]) -> Rows:
    """How many relations are read off captions. Chance: always the commonest."""
    batch = run.plain(samples, "relation")
    alone = {name: batch[name] for name in ("tokens", "mask")}
    guess = run.read(alone, lambda output, rows: output.relation_logits.argmax(-1))
    return {"relations told": row((guess == batch["label"]).float().mean(), majority_share(batch["label"]))}


DETECTION = Objective(
    "detection", {"classes": every_class, "l1": None, "giou": None}, reads=(Objects(),), measures=(detection_precision,)
)
RELATION = Objective(
    "relation",
    {"relation": ln("relations")},
    reads=(Labels(into="relations", source="stated"),),
    measures=(relation_accuracy,),
)
RECIPE = Recipe(
    UniT,
    UniTConfig,
    reads=(Image(), Tokens()),
    learns=OneOf(DETECTION, replace(VQA, by_request=False), ITM, RELATION),
    architecture="""
    image -> residual network -> picture encoder [reads the task] -> decoder -> !classes and boxes, matched
    words -> text encoder [reads the task] -> decoder -> !answer
    queries [of the task] -> decoder -> !match
    decoder -> !relation
    """,
)
