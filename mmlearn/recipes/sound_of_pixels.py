"""The recipe of Sound of Pixels: what it reads, what it learns, and how that is measured."""

from collections.abc import Sequence
from typing import Any

import torch

from mmlearn.data.fields import Video, Waveform
from mmlearn.evaluation.measures import row
from mmlearn.evaluation.separation import si_sdr
from mmlearn.models.audiovisual.sound_of_pixels import SoundOfPixels, SoundOfPixelsConfig
from mmlearn.recipes import Objective, Recipe, ln


def separation(run: Any, samples: Sequence[Any]) -> dict[str, dict[str, float | None]]:
    """How well each sound is taken out of a mixture of two, as SI-SDR in decibels. Chance: the mixture as it is.

    Raises ``ValueError`` where there are no two clips, or nothing is heard in any.
    """
    estimate, mixture = [], []
    for batch in run.batches(samples, size=2):
        if len(batch["waveform"]) == 2:
            mixed = batch["waveform"].sum(0, keepdim=True).expand(2, -1)
            loud = batch["waveform"].square().sum(1) > 0
            estimate.append(si_sdr(run.system.separate(batch["video"], mixed)[loud], batch["waveform"][loud]))
            mixture.append(si_sdr(mixed[loud], batch["waveform"][loud]))
    if not any(map(len, estimate)):
        raise ValueError(f"A mixture is of two clips that are heard; {len(samples)} samples gave none to separate.")
    return {"SI-SDR in dB": row(torch.cat(estimate).mean(), torch.cat(mixture).mean())}


RECIPE = Recipe(
    SoundOfPixels,
    SoundOfPixelsConfig,
    reads=(Video(fps=10), Waveform(standard=False)),
    learns=Objective("mask", {"mask": ln(2)}, measures=(separation,)),
    architecture="""
    solo 1 [waveform] -> mixture -> U-Net -> components [spectrogram masks] -> mask of each solo -> !mask loss
    solo 2 [waveform] -> mixture
    frames of each solo -> ResNet -> pixel features -> mask of each solo
    """,
)
