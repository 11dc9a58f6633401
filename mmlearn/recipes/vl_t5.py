"""The recipe of VL-T5: what it reads, what it learns, and how that is measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from mmlearn.data.fields import Batch, Field, Regions
from mmlearn.data.fields.instructions import Box, Instructions, TextTarget
from mmlearn.data.fields.labels import Sizes
from mmlearn.data.synthetic.instructions import PREFIXES, Instruct
from mmlearn.evaluation.instructions import box_accuracy, caption_quality, text_accuracy
from mmlearn.models.many_tasks.vl_t5 import VLT5, VLT5Config
from mmlearn.recipes import Objective, OneOf, Recipe
from mmlearn.recipes.shared.unified_vocabulary import TOKENS


@dataclass(frozen=True)
class RegionNumber(Field):
    """``region`` (b,): the number of the region that is spoken of."""

    holds = {"region": "Int b < bins"}
    needs = "number"
    noun = "regions with phrases"
    advice = "use --data scenes"

    def __call__(self, samples: Sequence[Any]) -> Batch:
        return {"region": torch.tensor([sample.number for sample in samples])}

    def example(self, b: int, config: VLT5Config, generator: torch.Generator) -> Batch:
        return {"region": torch.arange(b) % 3}  # which every example has


@dataclass(frozen=True)
class RegionTarget(TextTarget):
    """As A text target with a region's token as target or last in the prompt."""

    def targets(self, batch: Batch, sizes: Sizes) -> list[Int[Tensor, "_"]]:
        """The region's token and the end token; with ``region``, the response."""
        said = super().targets(batch, sizes)
        return said if self.region else [torch.cat([one, row[-1:]]) for one, row in zip(self.named(batch, sizes), said)]

    def named(self, batch: Batch, sizes: Sizes) -> Int[Tensor, "b 1"]:
        """What stands for the region."""
        return sizes("vocab_size") + batch["region"][:, None]


def objective(task: str, label: TextTarget, measure: Callable, *reads: Field) -> Objective:
    """A task under its prefix."""
    return Objective(task, TOKENS, (label,), reads, Instruct(task, PREFIXES[task]), measures=(measure(task),))


RECIPE = Recipe(
    VLT5,
    VLT5Config,
    reads=(Regions(), Instructions()),
    learns=OneOf(
        objective("caption", TextTarget(), caption_quality),
        objective("vqa", TextTarget(), text_accuracy),
        objective("grounding", RegionTarget(), box_accuracy, RegionNumber(), Box()),
        objective("naming", RegionTarget(region=True), text_accuracy, RegionNumber()),
    ),
    architecture="""
    regions -> sum [normed features, normed box, number] -> encoder -> decoder [causal] -> !words and regions
    prefix and words -> encoder
    target [one position later] -> decoder
    """,
)
