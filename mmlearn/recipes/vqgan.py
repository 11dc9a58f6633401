"""The recipe of VQGAN: what it reads, what it learns, and how that is measured."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmlearn.evaluation.measures import Rows, row
from mmlearn.models.image_tokens.vqgan import VQGAN, VQGANConfig
from mmlearn.recipes import Alarm, Objective, OptimizerStep, Recipe, Stage
from mmlearn.recipes.shared.image_codes import Pixels, reconstruction


def fooling_rate(run: Any, samples: Sequence[Any]) -> Rows:
    """How often a patch is taken for real, of pictures that are and that are painted."""
    real: list[Tensor] = []
    painted: list[Tensor] = []
    for batch in run.batches(samples):
        for scores, image in ((real, batch["image"]), (painted, run.system(batch["image"]).image)):
            scores.append(run.system.discriminator(image))
    found = {"real patches taken for real": real, "painted patches taken for real": painted}
    return {name: row((torch.cat(scores) > 0).float().mean()) for name, scores in found.items()}


# Who knows nothing pays 1. Before the discriminator counts both losses are 0, and so the second is not above its bound.
WON = Alarm(
    "the discriminator has won: next to no painted patch passes for real, and the decoder learns little from it; "
    "start anew with a higher adversarial_start or a lower adversarial_weight",
    below={"discriminator": 0.1},
    above={"adversarial": 0.0},
)
RECIPE = Recipe(
    VQGAN,
    VQGANConfig,
    reads=(Pixels(),),
    stages=(
        Stage(
            Objective(
                "rebuilding",
                dict.fromkeys(("pixels", "commitment", "adversarial", "discriminator")),
                measures=(reconstruction, fooling_rate),
            ),
            optimizer_steps=(
                OptimizerStep("discriminator_loss", trains=("discriminator",), alarm=WON),
                OptimizerStep(trains=("encoder", "decoder")),
            ),
        ),
    ),
    architecture="""
    image -> encoder [convolutions] -> z -> codes [nearest entry] -> decoder [convolutions] -> !squared error
    z ~> codebook [moving average] -> codes
    z -> !commitment
    decoder -> discriminator [of patches] -> !real or painted
    image -> discriminator
    """,
)
