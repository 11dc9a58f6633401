"""What a sound looks like: its log-mel spectrogram, that spectrogram with parts hidden, and as a picture."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from mmlearn.data.readers.sound import RATE, WINDOW

HOP = 0.010  # seconds from frame to frame
FLOOR = 1e-6  # power below is silence: about -80 dB of full scale


class LogMel(nn.Module):
    r"""Power of each band of frequencies, every 10 ms, in windows of 25 ms: ``(b, samples)`` to ``(b, mels, s)``.

    .. math:: m_{ks} = \ln \max\Big(\textstyle\sum_j F_{kj} \left|\mathrm{STFT}(x)_{js}\right|^2,\ 10^{-6}\Big)

    :math:`F` are triangles at equal distances on the mel scale. A clip of n samples has ⌈n / 160⌉ frames, so a second
    has 100; frame s is centred on sample 160 s, with silence before and after the clip. Frames that a clip does not
    have hold the silence, ln 10⁻⁶. Neither they nor what stands in padded samples changes a clip's own frames.
    Source: :class:`torchaudio.transforms.MelSpectrogram`, with the scale of HTK and no normalisation of triangles.
    """

    def __init__(self, n_mels: int = 80):
        super().__init__()
        from torchaudio.transforms import MelSpectrogram

        self.hop = round(HOP * RATE)
        self.power = MelSpectrogram(
            RATE, n_fft=round(WINDOW * RATE), hop_length=self.hop, n_mels=n_mels, pad_mode="constant"
        )

    def forward(
        self, waveform: Float[Tensor, "b samples"], mask: Bool[Tensor, "b samples"] | None = None
    ) -> tuple[Float[Tensor, "b mels s"], Bool[Tensor, "b s"]]:
        """The spectrogram and which of its frames are real. All samples are, unless a ``mask`` says otherwise."""
        if mask is None:
            mask = torch.ones_like(waveform, dtype=torch.bool)
        frames = math.ceil(waveform.shape[1] / self.hop)
        mel = self.power(waveform.masked_fill(~mask, 0))[:, :, :frames].clamp(min=FLOOR).log()
        real = mask[:, :: self.hop]  # a frame is, where the sample is that it is centred on
        return mel.masked_fill(~real[:, None], math.log(FLOOR)), real


def spec_augment(
    mel: Float[Tensor, "b mels s"],
    mel_mask: Bool[Tensor, "b s"],
    generator: Generator,
    *,
    bands: int = 2,
    band_width: int = 27,
    spans: int = 2,
    span_width: int = 70,
    share: float = 0.2,
    value: float = 0.0,
) -> Float[Tensor, "b mels s"]:
    """Hide ``bands`` of frequencies and ``spans`` of time in each clip, at random; what is hidden becomes ``value``.

    A band has fewer than ``band_width`` mels, a span fewer than ``span_width`` frames and than ``share`` of the clip's
    own frames; padding has no part in it. For spectrograms on the CPU whose mean is ``value``.

    Source: Park et al. 2019 (SpecAugment), section 2 and table 1, "Switchboard strong", without the warping of time;
    masks are drawn by torchaudio. It draws from the global generator, which is put back as it was.
    """
    from torchaudio.functional import mask_along_axis

    mels = mel.shape[1]
    seed = int(torch.randint(2**62, (), generator=generator))
    lengths = mel_mask.sum(1).tolist()
    hidden = mel.clone()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for clip, length in zip(hidden, lengths):
            own = clip[:, :length]
            for _ in range(bands):
                own = mask_along_axis(own, min(band_width, mels), value, axis=0)
            for _ in range(spans):
                own = mask_along_axis(own, min(span_width, length), value, axis=1, p=share)
            clip[:, :length] = own
    return hidden


def mel_image(waveform: Float[Tensor, "samples"], size: int = 64) -> Float[Tensor, "3 size size"]:
    """A sound as a picture in [0, 1]: time from left to right, low frequencies below, loud parts bright."""
    mel, _ = LogMel()(waveform[None])
    low, high = math.log(FLOOR), max(float(mel.max()), math.log(FLOOR) + 1)
    grey = F.interpolate(((mel.flip(1) - low) / (high - low))[None], size=(size, size), mode="bilinear")
    return grey[0].clamp(0, 1).expand(3, size, size).clone()
