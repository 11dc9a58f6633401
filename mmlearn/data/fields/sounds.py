"""Fields that are heard: waveforms, log-mel spectrograms, the clusters of their frames, and what is said as letters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from mmlearn.data.batches import fetch, spread
from mmlearn.data.fields.field import Batch, Field, size
from mmlearn.data.mel import HOP, spec_augment, whisper_log_mel
from mmlearn.data.mel import LogMel as Spectrogram
from mmlearn.data.readers.sound import RATE
from mmlearn.data.speech_features import mfcc, standardise
from mmlearn.layers.config import Config
from mmlearn.objectives.clusters import cluster, nearest

ADVICE = "use --data scenes-sound, or a folder whose captions.csv names sounds"
CLIPS = 256  # spread through the data: of these statistics and clusters are made
FRAMES = 20_000  # of theirs, at most, for clusters


@lru_cache(maxsize=4)
def spectrogram(mels: int) -> Spectrogram:
    """The module that makes log-mel spectrograms of so many bands."""
    return Spectrogram(mels)


def pad_waveforms(
    waveforms: Sequence[Float[Tensor, "_"]],
) -> tuple[Float[Tensor, "b samples"], Bool[Tensor, "b samples"]]:
    """Sounds of any length as one tensor, silent behind their end, and which samples are real."""
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    padded = pad_sequence(list(waveforms), batch_first=True)
    return padded, torch.arange(padded.shape[1]) < lengths[:, None]


def mel_statistics(data: Dataset, mels: int, count: int = CLIPS) -> tuple[float, float]:
    """Mean and standard deviation over the log-mel spectrograms of ``count`` samples, spread through the data."""
    samples = fetch(data, spread(len(data), count))
    values = torch.cat([spectrogram(mels)(sample.waveform[None])[0].flatten() for sample in samples])
    return values.mean().item(), max(values.std().item(), 1e-3)


@dataclass(frozen=True)
class Waveform(Field):
    """``waveform`` (b, samples) at 16 kHz and ``waveform_mask``; ``standard``: each clip at mean 0 and variance 1."""

    standard: bool = True

    holds = {"waveform": "Float b samples", "waveform_mask": "Bool b samples"}
    needs = "waveform"
    noun = "sounds"
    advice = ADVICE
    fixed = "augmentation hides parts of spectrograms, and waveforms are read here"

    def data_options(self, config: Config) -> dict[str, Any]:
        return {"speech": True}

    def __call__(self, samples: Sequence[Any]) -> Batch:
        waveform, mask = pad_waveforms([sample.waveform for sample in samples])
        return {"waveform": standardise(waveform, mask) if self.standard else waveform, "waveform_mask": mask}

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        samples = RATE // 2
        mask = torch.arange(samples) < samples - 700 * (torch.arange(b)[:, None] % 4)
        pitch = 100 + 1000 * torch.rand(b, 3, 1, generator=generator)  # chords, which are easier to learn than noise
        waveform = (2 * math.pi * pitch * torch.arange(samples) / RATE).sin().sum(1)
        waveform = waveform + 0.1 * torch.randn(b, samples, generator=generator)
        return {"waveform": waveform * mask, "waveform_mask": mask}


@dataclass(frozen=True)
class LogMel(Field):
    """``mel`` (b, mels, s), 100 frames a second, less the data's mean and over its deviation, and ``mel_mask`` (b, s).

    ``bands`` is what the configuration calls the number of bands. At most ``frames`` are taken, where that is set.
    """

    bands: str = "mels"
    mels: int = 80
    frames: int | None = None
    mean: float = 0.0
    std: float = 1.0
    fixed: str = field(default="", kw_only=True)  # why no part of a spectrogram may be hidden at random

    holds = {"mel": "Float b mels s", "mel_mask": "Bool b s"}
    known = ("mels", "frames", "mean", "std")
    needs = "waveform"
    noun = "sounds"
    advice = ADVICE

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and 0 < self.std < math.inf):
            raise ValueError(f"mean and std of log-mels are finite, and std above 0, not {self.mean} and {self.std}.")

    def data_options(self, config: Config) -> dict[str, Any]:
        frames = size(config, "frames")
        return {"seconds": None if frames is None else frames * HOP, "speech": True}

    def fitted(self, data: Dataset, config: Config, seed: int) -> Self:
        mels = size(config, self.bands)
        mean, std = mel_statistics(data, mels)
        return replace(self, mels=mels, frames=size(config, "frames"), mean=mean, std=std)

    def __call__(self, samples: Sequence[Any]) -> Batch:
        longest = None if self.frames is None else round(self.frames * HOP * RATE)
        mel, mask = spectrogram(self.mels)(*pad_waveforms([sample.waveform[:longest] for sample in samples]))
        return {"mel": (mel - self.mean) / self.std, "mel_mask": mask}

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        s = 48
        mask = torch.arange(s) < s - 8 * (torch.arange(b)[:, None] % 3)
        coarse = torch.randn(b, 1, 6, 6, generator=generator)
        mel = F.interpolate(coarse, (size(config, self.bands), s), mode="bilinear")[:, 0]
        return {"mel": 2 * mel + 0.1 * torch.randn(mel.shape, generator=generator), "mel_mask": mask}

    def augmented(self, batch: Batch, generator: torch.Generator) -> Batch:
        return batch | {"mel": spec_augment(batch["mel"], batch["mel_mask"], generator)}


@dataclass(frozen=True)
class WhisperMel(Field):
    """``mel`` (b, mels, frames) as :func:`~mmlearn.data.mel.whisper_log_mel` makes it, with silence behind each sound.

    A sound that is longer than the frames is refused, because its text would say more than is heard.
    """

    mels: int = 80
    frames: int = 3000

    holds = {"mel": "Float b {mels} {frames}"}
    known = ("mels", "frames")
    needs = "waveform"
    noun = "sounds"
    advice = ADVICE
    fixed = "augmentation hides frames behind a mask, and there is none here"

    def data_options(self, config: Config) -> dict[str, Any]:
        return {"speech": True}

    def fitted(self, data: Dataset, config: Config, seed: int) -> Self:
        return replace(self, mels=size(config, "mels"), frames=size(config, "frames"))

    def __call__(self, samples: Sequence[Any]) -> Batch:
        for sample in samples:
            if len(sample.waveform) > self.frames * HOP * RATE:
                seconds, name = len(sample.waveform) / RATE, getattr(sample, "source", "") or "A sound"
                raise ValueError(
                    f"{name} lasts {seconds:.4g} s, and {self.frames * HOP:g} s are heard at once: cut it into pieces."
                )
        waveform, _ = pad_waveforms([sample.waveform for sample in samples])
        return {"mel": whisper_log_mel(waveform, self.mels, self.frames)}

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        coarse = torch.randn(b, 1, 6, 12, generator=generator)
        mel = F.interpolate(coarse, (size(config, "mels"), size(config, "frames")), mode="bilinear")[:, 0]
        return {"mel": mel + 0.1 * torch.randn(mel.shape, generator=generator)}


@dataclass(frozen=True)
class Clusters(Field):
    """``cluster`` (b, frames): the number of each frame by k-means of the data's cepstra, -100 in padding.

    There are 50 frames a second, of which every ``every``-th counts. Source: Hsu et al. 2021 (HuBERT), section II-A.
    """

    every: int = 1
    centroids: tuple[tuple[float, ...], ...] = ()

    holds = {"cluster": "Int b frames < clusters or -100"}
    known = ("centroids",)
    needs = "waveform"
    noun = "sounds"
    advice = ADVICE

    def __post_init__(self) -> None:
        if len({len(row) for row in self.centroids}) > 1 or not all(
            math.isfinite(x) for row in self.centroids for x in row
        ):
            raise ValueError("centroids are rows of equally many finite numbers.")

    def _frames(self, sample: Any) -> Tensor:
        return mfcc(sample.waveform)[:: self.every]

    def fitted(self, data: Dataset, config: Config, seed: int) -> Self:
        samples, wanted = fetch(data, spread(len(data), CLIPS)), size(config, "clusters")
        frames = torch.cat([self._frames(sample) for sample in samples])
        if len(frames) < wanted:
            raise ValueError(f"{len(frames)} frames are too few for {wanted} clusters: give more sounds.")
        generator = torch.Generator().manual_seed(seed)
        frames = frames[torch.randperm(len(frames), generator=generator)[:FRAMES]]
        return replace(self, centroids=tuple(map(tuple, cluster(frames, wanted, generator=generator).tolist())))

    def sizes(self) -> dict[str, Any]:
        return {"clusters": len(self.centroids)}

    def __call__(self, samples: Sequence[Any]) -> Batch:
        centroids = torch.tensor(self.centroids)
        numbers = [nearest(self._frames(sample), centroids) for sample in samples]
        return {"cluster": pad_sequence(numbers, batch_first=True, padding_value=-100)}

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        s = 24 // self.every
        mask = torch.arange(s) < s - 2 * (torch.arange(b)[:, None] % 3) * (3 - self.every)
        numbers = torch.randint(size(config, "clusters"), (b, s), generator=generator)
        return {"cluster": numbers.masked_fill(~mask, -100)}
