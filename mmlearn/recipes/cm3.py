"""The recipe of CM3: what it reads, what it learns, and how that is measured."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from mmlearn.data.fields import Batch, Label, Tokens
from mmlearn.models.image_tokens.cm3 import CM3, SPANS, CM3Config, predicted_tokens
from mmlearn.objectives.causal_masked import draw_shares
from mmlearn.recipes import Objective, OptimizerStep, Recipe, Stage, ln
from mmlearn.recipes.shared.image_codes import Pixels, codec_stage, token_accuracy


@dataclass(frozen=True)
class MovedSpans(Label):
    """``shares`` (b, m, 2): which spans of a document are moved, as shares of its length; 0 and 0 are none."""

    most: int = SPANS
    mean: float = 1.0

    holds = {"shares": "Float b {spans} 2"}

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Callable[[str], int]) -> Batch:
        return batch | {"shares": draw_shares(len(batch["tokens"]), self.most, self.mean, generator=generator)}


RECIPE = Recipe(
    CM3,
    CM3Config,
    reads=(Pixels(), Tokens()),
    stages=(
        codec_stage("pixels", "commitment"),
        Stage(
            Objective(
                "cm",
                {"cm": ln("all_tokens")},
                labels=(MovedSpans(),),
                measures=(token_accuracy("next token", predicted_tokens),),
            ),
            optimizer_steps=(OptimizerStep(trains=("decoder", "positions")),),
            name="documents",
        ),
    ),
    architecture="""
    image -> *VQ-VAE -> codes -> move spans [to the end] -> transformer [causal] -> !next token
    words -> move spans
    """,
)
