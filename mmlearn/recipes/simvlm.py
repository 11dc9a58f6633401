"""The recipe of SimVLM: what it reads, what it learns, and how that is measured."""

from dataclasses import dataclass

import torch

from mmlearn.data.fields import Batch, Image, Label, Tokens
from mmlearn.data.fields.labels import Sizes
from mmlearn.models.captions.simvlm import SimVLM, SimVLMConfig
from mmlearn.objectives import draw_prefix
from mmlearn.recipes import Objective, Recipe, ln
from mmlearn.recipes.objectives import LM


@dataclass(frozen=True)
class GivenPrefix(Label):
    """``prefix`` (b, t): which tokens of a text are given, a random number of its first ones. The others are asked."""

    holds = {"prefix": "Bool b t"}

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        return batch | {"prefix": draw_prefix(batch["mask"], generator)}


RECIPE = Recipe(
    SimVLM,
    SimVLMConfig,
    reads=(Image(), Tokens()),
    learns=Objective("prefix-lm", {"lm": ln("vocab_size")}, labels=(GivenPrefix(),), measures=LM.measures),
    writes=True,
    architecture="""
    image -> convolutions [three stages] -> encoder [both ways] -> decoder [causal] -> !PrefixLM
    given words -> encoder
    other words -> decoder
    """,
)
