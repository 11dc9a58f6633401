"""The recipe of Lip2Wav: what it reads, what it learns, and how that is measured."""

from collections.abc import Sequence
from typing import Any

import torch

from mmlearn.data.fields import LogMel, Video
from mmlearn.evaluation.measures import row
from mmlearn.models.audiovisual.lip2wav import Lip2Wav, Lip2WavConfig
from mmlearn.recipes import Objective, Recipe, silence


def distance_of_speech(run: Any, samples: Sequence[Any]) -> dict[str, dict[str, float | None]]:
    """How far the spectrogram is from the true one, where each step knows the true past. Chance: the mean of all."""
    off, blind = [], []
    for batch in run.batches(samples):
        output = run.call(run.system.forward, batch)
        off.append((output.mel - batch["mel"]).mT[batch["mel_mask"]].abs())
        blind.append(batch["mel"].mT[batch["mel_mask"]].abs())
    return {"distance of the spectrogram": row(torch.cat(off).mean(), torch.cat(blind).mean())}


RECIPE = Recipe(
    Lip2Wav,
    Lip2WavConfig,
    reads=(Video(), LogMel(fixed="log-mels are what is learned")),
    learns=Objective("reconstruction", {"before": silence, "mel": silence}, measures=(distance_of_speech,)),
    architecture="""
    lips -> convolutions over space and time -> encoder -> decoder [attends to the video]
    decoder -> before -> post-net -> mel -> !L1
    true past [log-mel] -> pre-net -> decoder
    before -> !L1
    """,
)
