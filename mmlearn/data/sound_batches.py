"""From samples with a sound to batches: waveforms of one length, spectrograms, and what else the samples have."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from mmlearn.data.batches import Collate, fetch, normalised, numbered
from mmlearn.data.hashing import stream
from mmlearn.data.mel import LogMel, spec_augment
from mmlearn.data.read.sound import RATE
from mmlearn.data.tokenizer import Tokenizer


class SoundCollate:
    """Samples with a ``waveform`` as a batch: a dict with ``waveform``, ``waveform_mask``, and what else there is.

    With ``log_mel`` also ``mel`` and ``mel_mask``, less ``mean`` and over ``std``; with a ``tokenizer`` also ``tokens``
    and ``mask`` of the captions; with ``words``, all that captions may be, their number as ``label``. Samples with
    pictures give ``image`` (pixels from 0 to 1, less ``image_mean`` and over ``image_std``), such with a video
    ``video``. With ``mark_repeats`` equal captions have equal ``caption_id``. At most ``seconds`` of a sound are taken.
    Without ``pictures`` these, and videos, are left out.

    Raises ``ValueError`` for a caption that is none of ``words``, and where only some of the samples have a picture.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | None = None,
        *,
        log_mel: LogMel | None = None,
        mean: float = 0.0,
        std: float = 1.0,
        words: Sequence[str] | None = None,
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.5, 0.5, 0.5),
        mark_repeats: bool = False,
        seconds: float | None = None,
        pictures: bool = True,
    ):
        self.tokenizer, self.log_mel, self.mean, self.std = tokenizer, log_mel, mean, std
        self.words = None if words is None else {word: number for number, word in enumerate(words)}
        self.image_mean, self.image_std, self.mark_repeats = image_mean, image_std, mark_repeats
        self.pictures = pictures
        self.longest = None if seconds is None else round(seconds * RATE)

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        waveform, mask = pad_waveforms([sample.waveform[: self.longest] for sample in samples])
        batch = {"waveform": waveform, "waveform_mask": mask}
        captions = [sample.caption for sample in samples]
        if self.log_mel:
            mel, batch["mel_mask"] = self.log_mel(waveform, mask)
            batch["mel"] = (mel - self.mean) / self.std
        if self.tokenizer:
            batch["tokens"], batch["mask"] = self.tokenizer(captions)
        if self.words is not None:
            batch["label"] = torch.tensor([self._number(sample) for sample in samples])
        if self.pictures and _have(samples, "image"):
            batch["image"] = normalised(samples, self.image_mean, self.image_std)
        if self.pictures and _have(samples, "video"):
            batch["video"] = torch.stack([sample.video for sample in samples])
        if self.mark_repeats:
            batch["caption_id"] = numbered(captions)
        return batch

    def _number(self, sample: Any) -> int:
        if sample.caption not in self.words:
            raise ValueError(f"{sample.source} has the caption {sample.caption!r}, which is none of the words.")
        return self.words[sample.caption]


class SpecAugmented:
    """Another collation with its ``mel`` changed by :func:`mmlearn.data.mel.spec_augment`.

    The sources of the samples, in order, are the seed.
    """

    def __init__(self, collate: Collate):
        self.collate = collate

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        batch = self.collate(samples)
        generator = torch.Generator().manual_seed(int(stream(*(str(sample.source) for sample in samples))) >> 1)
        return batch | {"mel": spec_augment(batch["mel"], batch["mel_mask"], generator)}


def pad_waveforms(
    waveforms: Sequence[Float[Tensor, "_"]],
) -> tuple[Float[Tensor, "b samples"], Bool[Tensor, "b samples"]]:
    """Sounds of any length as one tensor, silent where they are over, and which of its samples are real."""
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    padded = pad_sequence(list(waveforms), batch_first=True)
    return padded, torch.arange(padded.shape[1]) < lengths[:, None]


def mel_statistics(data: Dataset, log_mel: LogMel, count: int = 256) -> tuple[float, float]:
    """Mean and standard deviation of all values of the spectrograms of ``count`` samples, spread through the data."""
    samples = fetch(data, torch.linspace(0, len(data) - 1, min(count, len(data))).long().tolist())
    values = torch.cat([log_mel(sample.waveform[None])[0].flatten() for sample in samples])
    return values.mean().item(), max(values.std().item(), 1e-3)


def _have(samples: Sequence[Any], name: str) -> bool:
    """Whether all samples have this; ``ValueError`` where only some do."""
    without = [sample for sample in samples if getattr(sample, name, None) is None]
    if without and len(without) < len(samples):
        raise ValueError(f"{without[0].source} has no {name}, and others of its batch have one.")
    return not without
