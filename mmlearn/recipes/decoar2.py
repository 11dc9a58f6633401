"""The recipe of DeCoAR 2.0: what it reads, what it learns, and how that is measured."""

from collections.abc import Sequence
from typing import Any

import torch

from mmlearn.data.fields import LogMel
from mmlearn.evaluation.measures import row
from mmlearn.evaluation.speech import join_masked_frames
from mmlearn.models.speech.decoar2 import DeCoAR2, DeCoAR2Config
from mmlearn.objectives.speech import code_perplexity
from mmlearn.recipes import Objective, Recipe, zero_mel


def masked_frame_distance(run: Any, samples: Sequence[Any]) -> dict[str, dict[str, float | None]]:
    """The L1 distance of masked frames from their reconstruction. Chance: the mean of all sounds."""
    distance, chance, used = [], [], []
    for batch in run.batches(samples):
        mel, mask = batch["mel"], batch["mel_mask"]
        masked = run.system.draw(mask).masked
        output = run.system(mel, mask, masked)
        distance.append((output.mel - mel).mT[masked].abs())
        chance.append(mel.mT[masked].abs())
        used.append(output.probability[masked])
    return {
        "L1 distance of masked frames": row(join_masked_frames(distance).mean(), torch.cat(chance).mean()),
        f"perplexity of {run.system.config.entries} codes": row(code_perplexity(torch.cat(used)).mean()),
    }


RECIPE = Recipe(
    DeCoAR2,
    DeCoAR2Config,
    reads=(LogMel(fixed="log-mels are rebuilt here"),),
    learns=Objective(
        "reconstruction", {"reconstruction": zero_mel, "diversity": None}, measures=(masked_frame_distance,)
    ),
    architecture="""
    log-mel -> mask spans -> transformer -> quantiser [codebooks] -> reconstruct -> !L1 [masked frames]
    log-mel -> !L1
    quantiser -> !diversity
    """,
)
