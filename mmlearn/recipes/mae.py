"""The recipe of MAE: what it reads, what it learns, and how that is measured."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmlearn.data.fields import Patches, VisiblePatches
from mmlearn.evaluation.measures import row
from mmlearn.layers import patchify
from mmlearn.models.vision.mae import MAE, MAEConfig
from mmlearn.objectives import hidden_patches, masked_pixels, normalised_patches
from mmlearn.recipes import Objective, Recipe


def mean_pixel_loss(config: MAEConfig, batch: dict[str, Tensor]) -> float:
    """What it costs to say 0 of every hidden pixel: each patch's mean where they are normalised."""
    patches = patchify(batch["image"], config.image.patch_size)
    target = normalised_patches(patches) if config.normalise_pixels else patches
    return masked_pixels(torch.zeros_like(target), target, hidden_patches(batch["visible"], target.shape[1])).item()


def pixels_explained(run: Any, samples: Sequence[Any]) -> dict[str, dict[str, float | None]]:
    """How much less wrong hidden pixels are than the mean of their own patch, as a share: 1 is perfect, 0 is chance."""
    batch = run.label(run.plain(samples), VisiblePatches())

    def error(output: Any, rows: dict[str, Tensor]) -> Tensor:
        target = run.system.target(rows["image"])[output.hidden]
        return torch.stack([(output.prediction[output.hidden] - target).square().mean(-1), target.var(-1)], 1)

    wrong, spread = run.read(batch, error).mean(0)
    return {"hidden pixels explained": row(1 - wrong / spread, 0.0)}


RECIPE = Recipe(
    MAE,
    MAEConfig,
    reads=(Patches(),),
    learns=Objective("mim", {"pixels": mean_pixel_loss}, labels=(VisiblePatches(),), measures=(pixels_explained,)),
    architecture="""
    image -> patches -> visible ones -> ViT [a quarter of the patches] -> positions [mask tokens at the others]
    positions -> decoder [small] -> !squared error [hidden patches]
    patches -> !squared error
    """,
)
