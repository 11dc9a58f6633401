"""Speech from the waveform: strided convolutions, a context network, and a CTC head.

Waveforms are float32 (b, samples) at 16 kHz. Frames are written ``s``; with the published strides there are 50 a
second, each of 25 ms. Source: Baevski et al. 2020 (wav2vec 2.0), sections 2 and 4.2; Hsu et al. 2021 (HuBERT).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import small_linear
from mmlearn.models.audio.checks import real_samples
from mmlearn.models.speech.context_network import TINY_CONTEXT, ContextConfig, ContextNetwork, mask_frames

Count = TypeVar("Count", int, Tensor)


def frame_count(samples: Count, kernels: Sequence[int], strides: Sequence[int]) -> Count:
    r"""How many frames strided convolutions without padding make of ``samples``, a number or a tensor of them.

    .. math:: n \leftarrow \left\lfloor \frac{n - k}{s} \right\rfloor + 1 \quad \text{for each kernel k and stride s}

    A clip that is shorter than a window has none. Source: Dumoulin & Visin 2016, relationship 5.
    """
    for kernel, stride in zip(kernels, strides, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples.clamp(min=0) if isinstance(samples, Tensor) else max(samples, 0)


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    r"""How many samples a frame is computed from, :math:`1 + \sum_i (k_i - 1) \prod_{j < i} s_j`."""
    return 1 + sum((kernel - 1) * math.prod(strides[:i]) for i, kernel in enumerate(kernels))


def frame_mask(
    waveform_mask: Bool[Tensor, "b samples"], kernels: Sequence[int], strides: Sequence[int]
) -> Bool[Tensor, "b s"]:
    """Which frames are real: those whose receptive field holds real samples alone.

    A clip whose real part is shorter than a window has no real frame. Raises ``ValueError`` for a mask that is shorter
    than a window.
    """
    size = receptive_field(kernels, strides)
    if waveform_mask.shape[1] < size:
        raise ValueError(f"A clip of {waveform_mask.shape[1]} samples is shorter than one window of {size}.")
    return waveform_mask.unfold(1, size, math.prod(strides)).all(-1)  # (b, s, samples of a window) → (b, s)


@dataclass(frozen=True)
class SpeechEncoderConfig(ContextConfig):
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    norm_first: bool = False
    dropout: float = 0.1
    channels: tuple[int, ...] = (512,) * 7
    kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    convolution_norm: str = "group"  # or "layer" or "clip": see FeatureEncoder
    convolution_bias: bool = False
    spec_augment: bool = True  # False: no frame is masked, also where the caller says which


TINY_SPEECH = SpeechEncoderConfig(
    **TINY_CONTEXT, norm_first=True, channels=(16, 24, 32, 48, 64, 64, 64), convolution_norm="clip"
)
LARGE_SPEECH = SpeechEncoderConfig(
    width=1024, depth=24, num_heads=16, norm_first=True, dropout=0.0, convolution_norm="layer", convolution_bias=True
)


class FeatureEncoder(nn.Module):
    r"""Samples → frames, by convolutions without padding, each with GELU: (b, samples) → (b, s, channels).

    With the norm "group" the first convolution is normalised over time, each channel on its own: differences
    in loudness stay within a clip, but longer padding changes its frames. "clip" is the same over the real samples
    alone, by ``waveform_mask``, so the length of the padding does not matter. With "layer" each frame is normalised
    over its channels after every convolution. It then depends on no sample beyond its window, but loudness is
    lost, and small networks learn later.

    Padding is read as 0. Raises ``ValueError`` for another norm, for lists of different lengths, for a waveform that
    is shorter than one window, and as :func:`~mmlearn.models.audio.checks.real_samples` does.
    Source: Baevski et al. 2020 (wav2vec 2.0), sections 2 and 4.2, and official code for "group" and "layer".
    """

    def __init__(
        self, channels: Sequence[int], kernels: Sequence[int], strides: Sequence[int], norm: str, bias: bool = False
    ):
        super().__init__()
        if norm not in ("group", "clip", "layer"):
            raise ValueError(f"The norm of the convolutions is 'group', 'clip' or 'layer', not {norm!r}.")
        counts = f"{len(channels)}, {len(kernels)} and {len(strides)}"
        if not 1 <= len(channels) == len(kernels) == len(strides):
            raise ValueError(f"Each convolution has its channels, kernel and stride; got {counts} of them.")
        self.kernels, self.strides, self.norm = tuple(kernels), tuple(strides), norm
        self.convolutions = nn.ModuleList(
            nn.Conv1d(in_channels, out_channels, kernel, stride, bias=bias)
            for in_channels, out_channels, kernel, stride in zip((1, *channels), channels, kernels, strides)
        )
        for convolution in self.convolutions:
            nn.init.kaiming_normal_(convolution.weight)
        if norm == "layer":
            self.norms = nn.ModuleList(nn.LayerNorm(width) for width in channels)
        else:
            self.norms = nn.ModuleList([nn.GroupNorm(channels[0], channels[0])])

    def forward(
        self, waveform: Float[Tensor, "b samples"], waveform_mask: Bool[Tensor, "b samples"] | None = None
    ) -> Float[Tensor, "b s c"]:
        real = real_samples(waveform, waveform_mask)
        size = receptive_field(self.kernels, self.strides)
        if waveform.shape[1] < size:
            raise ValueError(f"A clip of {waveform.shape[1]} samples is shorter than one window of {size}.")
        x = waveform.masked_fill(~real, 0)[:, None]  # (b, 1, samples)
        for i, convolution in enumerate(self.convolutions):
            x = convolution(x)  # (b, c, n)
            if self.norm == "layer":
                x = self.norms[i](x.mT).mT
            elif i == 0 and self.norm == "clip":
                x = norm_over_clip(x, frame_mask(real, self.kernels[:1], self.strides[:1]), self.norms[0])
            elif i == 0:
                x = self.norms[0](x)
            x = F.gelu(x)
        return x.mT


def norm_over_clip(x: Float[Tensor, "b c n"], real: Bool[Tensor, "b n"], norm: nn.GroupNorm) -> Float[Tensor, "b c n"]:
    """Each channel of each clip at mean 0 and variance 1 over the real positions."""
    weight = (real / real.sum(1, keepdim=True).clamp(min=1))[..., None].to(x)  # (b, n, 1); products with it are means
    x = x - x @ weight
    scale = norm.weight[:, None] * (x.square() @ weight + norm.eps).rsqrt()  # (b, c, 1)
    return torch.addcmul(norm.bias[:, None], x, scale)


class SpeechOutput(NamedTuple):
    tokens: Float[Tensor, "b s d"]  # contextual frames
    mask: Bool[Tensor, "b s"]  # True where a frame is real
    features: Float[Tensor, "b s c"]  # of the convolutions, normalised and unmasked


class SpeechEncoder(nn.Module):
    r"""Waveform → frames → masked spans → positions → transformer: what wav2vec 2.0 and HuBERT share.

    .. math:: z = f(x), \quad c = g(\mathrm{mask}(z W) + \mathrm{pos})

    ``waveform_mask`` is True where a sample is real, ``masked`` (b, s) where a frame is replaced by one learned vector.
    With ``depth`` only that many blocks are computed, without the last norm. Raises ``ValueError`` as
    :class:`FeatureEncoder` and :func:`~mmlearn.models.speech.context_network.mask_frames` do.
    Source: Baevski et al. 2020 (wav2vec 2.0), section 2 and figure 1.
    """

    def __init__(self, config: SpeechEncoderConfig):
        super().__init__()
        self.config = config
        self.feature_encoder = FeatureEncoder(
            config.channels, config.kernels, config.strides, config.convolution_norm, config.convolution_bias
        )
        self.feature_norm = nn.LayerNorm(config.channels[-1], eps=config.norm_epsilon)
        self.projection = nn.Linear(config.channels[-1], config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.mask_embedding = nn.Parameter(torch.rand(config.width))
        self.context = ContextNetwork(config)

    def frame_mask(
        self, waveform: Float[Tensor, "b samples"], waveform_mask: Bool[Tensor, "b samples"] | None = None
    ) -> Bool[Tensor, "b s"]:
        """Which frames of these clips are real."""
        return frame_mask(real_samples(waveform, waveform_mask), self.config.kernels, self.config.strides)

    def forward(
        self,
        waveform: Float[Tensor, "b samples"],
        waveform_mask: Bool[Tensor, "b samples"] | None = None,
        masked: Bool[Tensor, "b s"] | None = None,
        depth: int | None = None,
    ) -> SpeechOutput:
        features = self.feature_norm(self.feature_encoder(waveform, waveform_mask))  # (b, s, c)
        masked = masked if self.config.spec_augment else None
        x = mask_frames(self.dropout(self.projection(features)), masked, self.mask_embedding)  # (b, s, d)
        mask = self.frame_mask(waveform, waveform_mask)
        return SpeechOutput(self.context(x, mask, depth), mask, features)


class CTCHead(nn.Module):
    r"""Each frame predicts a token or the blank; a text costs the likelihood of all alignments that spell it.

    .. math:: \ell = -\frac{1}{b} \sum_i \log \sum_{\pi \in B^{-1}(y_i)} \prod_s \mathrm{softmax}(z_s)_{\pi_s}

    ``loss`` is a mean over clips, each a sum over its text, by PyTorch's ``ctc_loss``; with the ``reduction`` "mean"
    each is divided by its number of tokens first. It raises ``ValueError`` for a token that is the blank or outside the
    vocabulary, and for a text that has more tokens than the clip has frames (equal neighbours need a blank between
    them). Source: Graves et al. 2006, equations 3 and 12; Baevski et al. 2020 (wav2vec 2.0), section 3.3.
    """

    def __init__(self, width: int, vocab_size: int, *, blank: int = 0, dropout: float = 0.0, reduction: str = "sum"):
        super().__init__()
        if reduction not in ("sum", "mean"):
            raise ValueError(f"The cost of a text is its 'sum' or its 'mean' over tokens, not {reduction!r}.")
        self.blank = blank
        self.dropout = nn.Dropout(dropout)
        self.reduction = reduction
        self.output = small_linear(width, vocab_size)

    def forward(self, x: Float[Tensor, "b s d"]) -> Float[Tensor, "b s v"]:
        return self.output(self.dropout(x))

    def loss(
        self,
        logits: Float[Tensor, "b s v"],
        frame_mask: Bool[Tensor, "b s"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, ""]:
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        wrong = mask & ((tokens < 0) | (tokens >= logits.shape[-1]) | (tokens == self.blank))
        if wrong.any():
            rule = f"A text has tokens from 0 to {logits.shape[-1] - 1} but not the blank, {self.blank}"
            raise ValueError(f"{rule}; got {int(tokens[wrong][0])}.")
        frames, length = frame_mask.sum(1), mask.sum(1)
        needed = length + ((tokens[:, 1:] == tokens[:, :-1]) & mask[:, 1:]).sum(1)
        if (short := needed > frames).any():
            raise ValueError(
                f"A clip of {int(frames[short][0])} frames cannot spell a text that needs {int(needed[short][0])}: "
                "one for each token, and one between equal neighbours."
            )
        log_probability = logits.float().log_softmax(-1).transpose(0, 1)  # (s, b, v), as ctc_loss takes it
        cost = F.ctc_loss(log_probability, tokens, frames, length, blank=self.blank, reduction="none")
        return (cost / length.clamp(min=1) if self.reduction == "mean" else cost).mean()
