"""What a sound looks like: its log-mel, as most systems and as Whisper hear it, with parts hidden, and as a picture."""

import math
from functools import lru_cache

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


@lru_cache(maxsize=4)
def slaney_bands(mels: int) -> Float[Tensor, "bins mels"]:
    """Triangles of area 1 at equal distances on Slaney's scale: linear up to 1 kHz, and then logarithmic."""
    from torchaudio.functional import melscale_fbanks

    n_fft = round(WINDOW * RATE)
    with torch.device("cpu"):  # kept, also where a model is being built without memory
        return melscale_fbanks(n_fft // 2 + 1, 0.0, RATE / 2, mels, RATE, norm="slaney", mel_scale="slaney")


def whisper_log_mel(
    waveform: Float[Tensor, "b samples"], mels: int = 80, frames: int | None = None
) -> Float[Tensor, "b mels s"]:
    r"""The log-mel that Whisper hears: 100 frames a second, the loudest 80 dB of a clip, near [-1, 1].

    .. math:: l = \log_{10} \max\Big(\textstyle\sum_j F_{kj} |\mathrm{STFT}(x)_{js}|^2,\, 10^{-10}\Big), \quad
       m_{ks} = \frac{\max(l_{ks},\, \max l - 8) + 4}{4}

    Window s, of 25 ms, is centred on sample 160 s; before and behind the clip its samples are mirrored. The F are
    :func:`slaney_bands`. With ``frames`` the clip is followed by silence up to so many: Whisper hears 3000, which are
    30 s. Raises ``ValueError`` for a clip that has more, and for one of fewer than 201 samples, which has no mirror.
    Source: Radford et al. 2022 (Whisper), section 2.2; official code, ``log_mel_spectrogram``.
    """
    n_fft, hop = round(WINDOW * RATE), round(HOP * RATE)
    if frames is not None:
        if waveform.shape[1] > frames * hop:
            raise ValueError(
                f"A sound of {waveform.shape[1] / RATE:.4g} s is longer than the {frames * HOP:g} s that are heard at "
                "once: cut it into pieces."
            )
        waveform = F.pad(waveform, (0, frames * hop - waveform.shape[1]))
    if waveform.shape[1] <= n_fft // 2:
        raise ValueError(f"A log-mel of Whisper needs more than {n_fft // 2} samples, got {waveform.shape[1]}.")
    window = torch.hann_window(n_fft, device=waveform.device)
    spectrum = torch.stft(waveform, n_fft, hop, window=window, return_complex=True)  # (b, bins, s + 1)
    power = spectrum[:, :, :-1].abs().square()  # the last window is centred behind the clip
    log = (slaney_bands(mels).to(power).T @ power).clamp(min=1e-10).log10()  # (b, mels, s)
    loudest = log.amax((1, 2), keepdim=True)  # of each clip
    return (log.maximum(loudest - 8) + 4) / 4


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
