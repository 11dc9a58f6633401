"""From clips with pictures and a sound to batches, and sounds with noise before they are collated."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmlearn.data.batches import Collate
from mmlearn.data.hashing import stream
from mmlearn.data.made.scene_sound import add_noise
from mmlearn.data.sound_batches import SoundCollate, pad_waveforms
from mmlearn.data.tokenizer import Tokenizer


class VideoCollate(SoundCollate):
    """What ``SoundCollate`` makes of the sound and the text, with ``video`` (b, f, 3, h, w) and what is known of it.

    Videos are less ``image_mean`` and over ``image_std``, and there is no ``image``. ``text`` names the text of a
    sample: caption, or story. Of clips that have them there are ``order`` (b,), ``speaker`` (b,) and ``units`` (b, f).
    Without a tokenizer ``tokens`` and ``mask`` (b, t) are the samples' own ``target``, where they have one, padded
    with 0. Other options are those of ``SoundCollate``.
    """

    def __init__(self, tokenizer: Tokenizer | None = None, *, text: str = "caption", **options: Any):
        super().__init__(tokenizer, **options)
        self.text = text

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        batch = super().__call__([Changed(s, image=None, caption=getattr(s, self.text)) for s in samples])
        mean, std = (torch.tensor(list(values)).view(3, 1, 1) for values in (self.image_mean, self.image_std))
        batch["video"].sub_(mean).div_(std)
        for name in ("order", "speaker"):
            if hasattr(samples[0], name):
                batch[name] = torch.tensor([getattr(sample, name) for sample in samples])
        if hasattr(samples[0], "units"):
            batch["units"] = torch.stack([sample.units for sample in samples])
        if self.tokenizer is None and hasattr(samples[0], "target"):
            lengths = torch.tensor([len(sample.target) for sample in samples])
            batch["tokens"] = pad_sequence([sample.target for sample in samples], batch_first=True)
            batch["mask"] = torch.arange(batch["tokens"].shape[1]) < lengths[:, None]
        return batch


class Noisy:
    """Another collation, of samples whose sounds have noise of this ``kind`` at an ``snr`` in decibels.

    The samples' sources, in order, are the seed. What else is made of the sound, as ``mel``, is made of the noisy one.
    Raises ``ValueError`` naming a sample that is silent, which no noise can be in proportion to.
    """

    def __init__(self, collate: Collate, snr: float, kind: str = "white"):
        self.collate, self.snr, self.kind = collate, snr, kind

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        for sample in samples:
            if not sample.waveform.double().square().sum() > 0:
                raise ValueError(f"{sample.source} is silent or not a number, so that no SNR can be set; leave it out.")
        waveform, mask = pad_waveforms([sample.waveform for sample in samples])
        generator = torch.Generator().manual_seed(int(stream(self.kind, *(str(s.source) for s in samples))) >> 1)
        noisy = add_noise(waveform, self.snr, generator, self.kind, mask)
        return self.collate([Changed(s, waveform=x[: len(s.waveform)]) for s, x in zip(samples, noisy)])


class Changed:
    """A sample with other values for some of its fields."""

    def __init__(self, sample: Any, **fields: Any):
        self.__dict__.update(fields, _sample=sample)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sample, name)
