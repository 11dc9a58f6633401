"""What sounds in ``scenes-sound``, as words: the colour and the shape of each of two things, in their order."""

import torch
from jaxtyping import Float
from torch import Tensor

from mmlearn.data.batches import fetch
from mmlearn.data.hashing import stream
from mmlearn.data.made.scene_sound import SoundScenes, SoundSceneSample, add_noise
from mmlearn.data.made.scenes import COLOURS, SHAPES
from mmlearn.data.mel import LogMel

WORDS = ("-", *COLOURS, *SHAPES)  # 0 is the blank
PART = 2048  # clips whose spectra are made at once


def sounding_words(
    split: str, count: int, log_mel: LogMel, *, seconds: float = 0.7, seed: int = 0, snr: float | None = None
) -> tuple[list[SoundSceneSample], dict[str, Tensor]]:
    """Scenes of two things that sound one after the other, and a batch of them all.

    ``mel`` (b, mels, s) is near mean 0 and variance 1, and all of it is real (``mel_mask``). ``tokens`` (b, 4) are the
    numbers, in :data:`WORDS`, of colour and shape of the first thing and of the second. With ``snr``, babble is heard
    behind them, so many decibels below; the samples' own waveforms stay clean. Raises ``ValueError`` as
    :class:`~mmlearn.data.made.scene_sound.SoundScenes` does.
    """
    samples = fetch(SoundScenes(split, objects=2, size=24, seconds=seconds, seed=seed), range(count))
    waveform = torch.stack([sample.waveform for sample in samples])
    if snr is not None:
        generator = torch.Generator().manual_seed(int(stream("sounding words", split, seed)) >> 1)
        waveform = torch.cat([add_noise(part, snr, generator, "babble") for part in waveform.split(PART)])
    mel = (torch.cat([log_mel(part)[0] for part in waveform.split(PART)]) + 7) / 4
    named = [[sample.objects[link.object] for link in sample.links] for sample in samples]
    words = [[word for thing in things for word in (thing.colour, thing.shape)] for things in named]
    tokens = torch.tensor([[WORDS.index(word) for word in row] for row in words])
    whole = torch.ones_like(mel[:, 0], dtype=torch.bool)
    return samples, {"mel": mel, "mel_mask": whole, "tokens": tokens, "mask": tokens > 0}


def times_of_words(
    samples: list[SoundSceneSample], frame: float = 0.02
) -> tuple[Float[Tensor, "b 4"], Float[Tensor, "b 4"]]:
    """When each of the four words begins and ends to sound (b, 4), in frames of so many seconds.

    The two words of a thing sound together.
    """
    spans = torch.tensor([[(span.onset, span.offset) for span in sample.spans] for sample in samples])
    begin, end = (spans.repeat_interleave(2, 1) / frame).unbind(-1)
    return begin, end
