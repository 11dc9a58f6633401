"""Speech from the waveform: strided convolutions, positions by convolution, a transformer, and what reads words off it.

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

from mmlearn.layers.config import Config
from mmlearn.layers.padded import Padding, Transformer

Count = TypeVar("Count", int, Tensor)


def frame_count(samples: Count, kernels: Sequence[int], strides: Sequence[int]) -> Count:
    r"""How many frames strided convolutions without padding make of so many samples, a number or a tensor of them.

    .. math:: n \leftarrow \left\lfloor \frac{n - k}{s} \right\rfloor + 1 \quad \text{for each kernel k and stride s}

    A clip that is shorter than a window has none. Source: Dumoulin & Visin 2016, relationship 5.
    """
    for kernel, stride in zip(kernels, strides, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples.clamp(min=0) if isinstance(samples, Tensor) else max(samples, 0)


def window(kernels: Sequence[int], strides: Sequence[int]) -> int:
    r"""How many samples the first frame sees, :math:`1 + \sum_i (k_i - 1) \prod_{j < i} s_j`."""
    return 1 + sum((kernel - 1) * math.prod(strides[:i]) for i, kernel in enumerate(kernels))


def frame_mask(
    waveform_mask: Bool[Tensor, "b samples"], kernels: Sequence[int], strides: Sequence[int]
) -> Bool[Tensor, "b s"]:
    """Which frames see real samples only, where ``waveform_mask`` says which samples are real: the first ones.

    Raises ``ValueError`` for a mask that is not boolean or not True from the start without a gap, and for a clip
    without a frame.
    """
    if waveform_mask.dtype != torch.bool or waveform_mask.ndim != 2:
        raise ValueError(
            f"waveform_mask is boolean (b, samples), True where a sample is real; got {waveform_mask.dtype} "
            f"{tuple(waveform_mask.shape)}."
        )
    samples = waveform_mask.sum(1)
    if not torch.equal(waveform_mask, torch.arange(waveform_mask.shape[1], device=samples.device) < samples[:, None]):
        raise ValueError("waveform_mask is True from the first sample of a clip to its last: pad clips at their end.")
    frames = frame_count(samples, kernels, strides)
    if not frames.all():
        raise ValueError(
            f"The shortest clip has {int(samples.min())} samples, and one frame needs {window(kernels, strides)}: "
            "leave such clips out."
        )
    return torch.arange(frame_count(waveform_mask.shape[1], kernels, strides), device=frames.device) < frames[:, None]


def check_clips(batch: dict[str, Tensor]) -> tuple[Float[Tensor, "b samples"], Bool[Tensor, "b samples"] | None]:
    """The ``waveform`` and ``waveform_mask`` of a batch. ``ValueError`` without the first, or for an empty batch."""
    if "waveform" not in batch:
        raise ValueError(
            f"A batch of speech holds waveform (b, samples); this one has {', '.join(batch) or 'nothing'}."
        )
    if not len(batch["waveform"]):
        raise ValueError("A batch holds at least one clip.")
    return batch["waveform"], batch.get("waveform_mask")


@dataclass(frozen=True)
class SpeechEncoderConfig(Config):
    channels: tuple[int, ...] = (512,) * 7
    kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    convolution_norm: str = "group"  # or "layer" or "clip": see FeatureEncoder
    convolution_bias: bool = False
    position_kernel: int = 128  # frames
    position_groups: int = 16
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_width: int | None = None  # 4 · width
    activation: str = "gelu"
    norm_first: bool = False
    norm_epsilon: float = 1e-5
    dropout: float = 0.1


TINY_SPEECH = SpeechEncoderConfig(
    channels=(16, 24, 32, 48, 64, 64, 64),
    convolution_norm="clip",
    position_kernel=16,
    position_groups=4,
    width=64,
    depth=3,
    num_heads=2,
    norm_first=True,
    dropout=0.0,
)
LARGE_SPEECH = SpeechEncoderConfig(
    convolution_norm="layer",
    convolution_bias=True,
    width=1024,
    depth=24,
    num_heads=16,
    norm_first=True,
    dropout=0.0,
)


class FeatureEncoder(nn.Module):
    r"""Samples → frames, by convolutions without padding, each with GELU: (b, samples) → (b, s, channels).

    With the norm "group" the first convolution is normalised over time, each channel on its own: what is loud stays
    loud within a clip, but how long a batch is padded changes what a frame is. "clip" is the same over the real samples
    only, which ``waveform_mask`` tells, and so does not know how long a batch is padded. With "layer" each frame is
    normalised over its channels after every convolution: it depends on no sample beyond its window, but loud and quiet
    sound the same, and small networks learn later.

    Raises ``ValueError`` for another norm, for lists of different lengths, and for a waveform that is not float
    (b, samples) or is shorter than one window.
    Source: Baevski et al. 2020 (wav2vec 2.0), sections 2 and 4.2, and official code for "group" and "layer".
    """

    def __init__(
        self, channels: Sequence[int], kernels: Sequence[int], strides: Sequence[int], norm: str, bias: bool = False
    ):
        super().__init__()
        if norm not in ("group", "clip", "layer"):
            raise ValueError(f"The norm of the convolutions is 'group', 'clip' or 'layer', not {norm!r}.")
        if not 1 <= len(channels) == len(kernels) == len(strides):
            raise ValueError(
                "Each convolution has its channels, kernel and stride; got "
                f"{len(channels)}, {len(kernels)} and {len(strides)} of them."
            )
        self.kernels, self.strides, self.norm = tuple(kernels), tuple(strides), norm
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, after, kernel, stride, bias=bias)
            for before, after, kernel, stride in zip((1, *channels), channels, kernels, strides)
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
        if waveform.ndim != 2 or not waveform.is_floating_point():
            raise ValueError(
                f"Waveforms are float tensors of shape (b, samples); got {waveform.dtype} {tuple(waveform.shape)}."
            )
        least = window(self.kernels, self.strides)
        if waveform.shape[1] < least:
            raise ValueError(f"A clip of {waveform.shape[1]} samples is shorter than one window of {least}.")
        if self.norm == "layer":
            x = waveform[:, :, None]  # (b, n, channels)
            for convolution, norm in zip(self.convolutions, self.norms):
                x = F.gelu(norm(_convolve(x, convolution)))
            return x
        x = self.convolutions[0](waveform[:, None])  # (b, channels, n)
        if self.norm == "clip" and waveform_mask is not None:
            real = frame_mask(waveform_mask, self.kernels[:1], self.strides[:1])
            x = F.gelu(_norm_over_clip(x, real, self.norms[0]))
        else:
            x = F.gelu(self.norms[0](x))
        for convolution in self.convolutions[1:]:
            x = F.gelu(convolution(x))
        return x.mT


def _convolve(x: Float[Tensor, "b n c"], convolution: nn.Conv1d) -> Float[Tensor, "b s out"]:
    """A convolution between channels that come last, as layer norm wants them."""
    if x.device.type != "cpu":
        return convolution(x.mT).mT
    # On a CPU one product of all windows is twice as fast as a convolution between two transpositions.
    windows = x.unfold(1, convolution.kernel_size[0], convolution.stride[0]).flatten(2)
    return F.linear(windows, convolution.weight.flatten(1), convolution.bias)


def _norm_over_clip(x: Float[Tensor, "b c n"], real: Bool[Tensor, "b n"], norm: nn.GroupNorm) -> Float[Tensor, "b c n"]:
    """Each channel of each clip at mean 0 and variance 1 over what is real."""
    share = (real / real.sum(1, keepdim=True))[..., None].to(x)  # (b, n, 1); products with it are means
    x = x - x @ share
    scale = norm.weight[:, None] * (x.square() @ share + norm.eps).rsqrt()
    return torch.addcmul(norm.bias[:, None], x, scale)


class ConvolutionalPositions(nn.Module):
    r"""Where a frame is, from its neighbours: a wide grouped convolution whose kernel has its length apart from it.

    .. math:: \mathrm{GELU}(w * x + b), \quad
       w_{\cdot\cdot i} = g_i \frac{v_{\cdot\cdot i}}{\lVert v_{\cdot\cdot i} \rVert}

    for each place i of the kernel. To be added to x, (b, s, d). Padding must be 0.

    Raises ``ValueError`` where ``width`` is no multiple of ``groups``.
    Source: Baevski et al. 2020 (wav2vec 2.0), section 2; Mohamed et al. 2019; Salimans & Kingma 2016, equation 2.
    """

    def __init__(self, width: int, kernel: int, groups: int):
        super().__init__()
        if width % groups:
            raise ValueError(f"width {width} is no multiple of the {groups} groups of the positions.")
        self.groups = groups
        self.direction = nn.Parameter(torch.randn(width, width // groups, kernel) * (4 / (kernel * width)) ** 0.5)
        self.length = nn.Parameter(self.direction.detach().norm(dim=(0, 1)))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "b s d"]) -> Float[Tensor, "b s d"]:
        weight = self.direction * (self.length / self.direction.norm(dim=(0, 1)))
        kernel = weight.shape[-1]
        x = F.pad(x.mT, (kernel // 2, (kernel - 1) // 2))  # an even kernel looks one frame farther back than ahead
        return F.gelu(F.conv1d(x, weight, self.bias, groups=self.groups)).mT


class SpeechOutput(NamedTuple):
    """What :class:`SpeechEncoder` returns."""

    tokens: Float[Tensor, "b s d"]  # frames that have seen the clip; 0 where there is padding
    mask: Bool[Tensor, "b s"]  # which of them are real
    features: Float[Tensor, "b s c"]  # what was heard at each, normalised, before anything was hidden


class SpeechEncoder(nn.Module):
    r"""Waveform → frames → hidden spans → positions → transformer: what wav2vec 2.0 and HuBERT share.

    .. math:: z = f(x), \quad c = g(\mathrm{mask}(z W) + \mathrm{pos})

    ``waveform_mask`` says which samples are real, ``masked`` (b, s) which frames are hidden: these show one learned
    vector. With ``depth`` only so many blocks are computed, without the last norm. The blocks are post-norm after a
    norm, or with ``norm_first`` pre-norm before one.

    Raises ``ValueError`` as :class:`FeatureEncoder` and :func:`frame_mask` do, and for a ``masked`` that is not boolean
    (b, s).
    Source: Baevski et al. 2020 (wav2vec 2.0), section 2 and figure 1.
    """

    def __init__(self, config: SpeechEncoderConfig):
        super().__init__()
        self.config = config
        channels, width, epsilon = config.channels[-1], config.width, config.norm_epsilon
        self.feature_encoder = FeatureEncoder(
            config.channels, config.kernels, config.strides, config.convolution_norm, config.convolution_bias
        )
        self.feature_norm = nn.LayerNorm(channels, eps=epsilon)
        self.projection = nn.Linear(channels, width)
        self.mask_embedding = nn.Parameter(torch.rand(width))
        self.positions = ConvolutionalPositions(width, config.position_kernel, config.position_groups)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(width, eps=epsilon)
        self.transformer = Transformer(
            width,
            config.depth,
            config.num_heads,
            mlp_width=config.mlp_width,
            activation=config.activation,
            norm_first=config.norm_first,
            norm_epsilon=epsilon,
            dropout=config.dropout,
        )

    def frame_mask(
        self, waveform: Float[Tensor, "b samples"], waveform_mask: Bool[Tensor, "b samples"] | None = None
    ) -> Bool[Tensor, "b s"]:
        """Which frames of these clips are real: the shape in which spans are hidden and clusters are given."""
        whole = torch.ones_like(waveform, dtype=torch.bool) if waveform_mask is None else waveform_mask
        if whole.shape != waveform.shape:
            raise ValueError(
                f"waveform_mask has the shape of the waveform, {tuple(waveform.shape)}; got {tuple(whole.shape)}."
            )
        return frame_mask(whole, self.config.kernels, self.config.strides)

    def forward(
        self,
        waveform: Float[Tensor, "b samples"],
        waveform_mask: Bool[Tensor, "b samples"] | None = None,
        masked: Bool[Tensor, "b s"] | None = None,
        depth: int | None = None,
    ) -> SpeechOutput:
        if waveform_mask is None:
            real, features = None, self.feature_encoder(waveform)
        else:
            real = self.frame_mask(waveform, waveform_mask)
            features = self.feature_encoder(waveform.masked_fill(~waveform_mask, 0), waveform_mask)
        features = self.feature_norm(features)
        x = self.dropout(self.projection(features))
        if masked is not None:
            if masked.dtype != torch.bool or masked.shape != x.shape[:2]:
                raise ValueError(
                    f"masked is boolean (b, s) = {tuple(x.shape[:2])}, True where a frame is hidden; got "
                    f"{masked.dtype} {tuple(masked.shape)}."
                )
            x = torch.where(masked[..., None], self.mask_embedding.to(x), x)
        if real is not None:
            x = x.masked_fill(~real[..., None], 0)  # the positions look at neighbours
        x = x + self.positions(x)
        padding = Padding(real)
        x = padding.remove(x)
        x = self.dropout(x if self.config.norm_first else self.norm(x))
        for block in self.transformer.blocks[:depth]:
            x = block(x, padding=padding)
        x = padding.restore(self.norm(x) if self.config.norm_first and depth is None else x)
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if real is None else real
        return SpeechOutput(x, mask, features)


class CTCHead(nn.Module):
    r"""Each frame names a token or the blank; the cost of a text is that of all ways in which frames can spell it.

    .. math:: \ell = -\frac{1}{b} \sum_i \log \sum_{\pi \in B^{-1}(y_i)} \prod_s \mathrm{softmax}(z_s)_{\pi_s}

    ``loss`` is a mean over clips, each a sum over its text, by PyTorch's ``ctc_loss``. It raises ``ValueError`` for a
    token that is the blank or outside the vocabulary, and for a text that has more tokens than the clip has frames
    (equal neighbours need a blank between them).
    Source: Graves et al. 2006, equations 3 and 12; Baevski et al. 2020 (wav2vec 2.0), section 3.3.
    """

    def __init__(self, width: int, vocab_size: int, *, blank: int = 0, dropout: float = 0.0):
        super().__init__()
        self.blank = blank
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, vocab_size)
        nn.init.normal_(self.output.weight, std=0.02)
        nn.init.zeros_(self.output.bias)

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
            raise ValueError(
                f"A text has tokens from 0 to {logits.shape[-1] - 1} but not the blank, {self.blank}; got "
                f"{int(tokens[wrong][0])}."
            )
        frames, length = frame_mask.sum(1), mask.sum(1)
        needed = length + ((tokens[:, 1:] == tokens[:, :-1]) & mask[:, 1:]).sum(1)
        if (short := needed > frames).any():
            raise ValueError(
                f"A clip of {int(frames[short][0])} frames cannot spell a text that needs {int(needed[short][0])}: "
                "one for each token, and one between equal neighbours."
            )
        log_probability = logits.float().log_softmax(-1).transpose(0, 1)
        total = F.ctc_loss(log_probability, tokens, frames, length, blank=self.blank, reduction="sum")
        return total / len(tokens)
