"""The recipe of Lip2Wav: what it reads, what it learns, and how that is measured."""

from collections.abc import Sequence
from typing import Any

import torch

from mmlearn.data.fields import LogMel, Video
from mmlearn.evaluation.measures import row
from mmlearn.models.audiovisual.lip2wav import Lip2Wav, Lip2WavConfig
from mmlearn.recipes import Objective, Recipe, zero_mel


def spectrogram_distance(run: Any, samples: Sequence[Any]) -> dict[str, dict[str, float | None]]:
    """The L1 distance to the true spectrogram, where each step reads the true past. Chance: the mean of all."""
    distance, chance = [], []
    for batch in run.batches(samples):
        output = run.call(run.system.forward, batch)
        distance.append((output.mel - batch["mel"]).mT[batch["mel_mask"]].abs())
        chance.append(batch["mel"].mT[batch["mel_mask"]].abs())
    return {"L1 distance of the spectrogram": row(torch.cat(distance).mean(), torch.cat(chance).mean())}


RECIPE = Recipe(
    Lip2Wav,
    Lip2WavConfig,
    reads=(Video(), LogMel(fixed="log-mels are what is learned")),
    learns=Objective("reconstruction", {"before": zero_mel, "mel": zero_mel}, measures=(spectrogram_distance,)),
    architecture="""
    lips -> convolutions over space and time -> encoder -> decoder [attends to the video]
    decoder -> before -> post-net -> mel -> !L1
    true past [log-mel] -> pre-net -> decoder
    before -> !L1
    """,
)
