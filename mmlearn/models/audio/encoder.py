"""Sound as tokens: segments of a waveform, or patches of a log-mel spectrogram.

Source: Akbari et al. 2021 (VATT), section 3.1; Gong et al. 2021 (AST), section 2.1.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.layers import Transformer, TransformerConfig
from mmlearn.models.audio.checks import real_frames, real_samples


class WaveformTokens(nn.Module):
    r"""Cut a waveform into patches of ``patch`` samples, project each, and add its learned position.

    The last patch is filled with zeros. Samples where ``waveform_mask`` is False become zeros as well. A patch is real
    if any of its samples is. Returns (b, n, d) and (b, n). Raises ``ValueError`` as
    :func:`~mmlearn.models.audio.checks.real_samples` does, and for a waveform that is longer than ``samples``.
    Source: Akbari et al. 2021 (VATT), section 3.1.
    """

    def __init__(self, samples: int, patch: int, width: int):
        super().__init__()
        self.samples, self.patch = samples, patch
        self.patches = nn.Linear(patch, width)
        self.positions = nn.Parameter(torch.randn(-(-samples // patch), width) * width**-0.5)

    def forward(
        self, waveform: Float[Tensor, "b samples"], waveform_mask: Bool[Tensor, "b samples"] | None = None
    ) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
        real = real_samples(waveform, waveform_mask)
        if not 1 <= waveform.shape[1] <= self.samples:
            raise ValueError(f"Sound has 1 to {self.samples} samples here, got {waveform.shape[1]}; cut it.")
        missing = -waveform.shape[1] % self.patch
        waveform, real = F.pad(waveform.masked_fill(~real, 0), (0, missing)), F.pad(real, (0, missing))
        patches = waveform.unflatten(1, (-1, self.patch))  # (b, n, patch)
        return self.patches(patches) + self.positions[: patches.shape[1]], real.unflatten(1, (-1, self.patch)).any(-1)


def patchify_mel(
    mel: Float[Tensor, "b mels s"], size: tuple[int, int], stride: tuple[int, int]
) -> Float[Tensor, "b row column values"]:
    r"""Cut a spectrogram into patches of ``size`` (bands, frames), one every ``stride`` of them.

    .. math:: x \in \mathbb{R}^{M \times S} \to x_p \in \mathbb{R}^{r \times c \times m s}, \quad
       r = \lfloor (M - m) / \delta_m \rfloor + 1, \; c = \lfloor (S - s) / \delta_s \rfloor + 1

    What is beyond the last whole patch is left out. Source: Gong et al. 2021 (AST), section 2.1.
    """
    return mel.unfold(1, size[0], stride[0]).unfold(2, size[1], stride[1]).flatten(3)


def patchify_frames(mask: Bool[Tensor, "b s"], size: int, stride: int) -> Bool[Tensor, "b column"]:
    """Which columns of patches are real: those without padding, and the first one if it holds anything real."""
    frames = mask.unfold(1, size, stride)
    return torch.cat([frames[:, :1].any(-1), frames[:, 1:].all(-1)], dim=1)


def patchify_clips(
    mel: Float[Tensor, "b mels s"], real: Bool[Tensor, "b s"], size: tuple[int, int], stride: tuple[int, int]
) -> tuple[Float[Tensor, "b row column values"], Bool[Tensor, "b column"]]:
    """The patches of clips of different lengths, and which of their columns are real.

    Padding becomes zeros, and a clip that is shorter than a patch is padded to one.
    """
    missing = max(size[1] - mel.shape[2], 0)
    mel, real = F.pad(mel.masked_fill(~real[:, None], 0), (0, missing)), F.pad(real, (0, missing))
    return patchify_mel(mel, size, stride), patchify_frames(real, size[1], stride[1])


@dataclass(frozen=True)
class AudioEncoderConfig(TransformerConfig):
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mels: int = 128  # bands of the spectrogram
    frames: int = 204  # at most: 2 s at 100 frames a second, as ImageBind has them
    patch_size: tuple[int, int] = (16, 16)  # bands, frames
    stride: tuple[int, int] = (10, 10)  # below patch_size, patches overlap
    class_token: bool = True
    one_position: bool = False  # a learned position for each patch, not one for its band and one for its time
    patch_norm: bool = False  # patches are normalised before they get a position, and projected without a bias
    extra_key: bool = False  # every query may also attend to a learned key and value


class AudioEncoderOutput(NamedTuple):
    tokens: Float[Tensor, "b n d"]  # the class token first, then patches: all of the lowest bands, then the next
    mask: Bool[Tensor, "b n"]


class AudioEmbedding(nn.Module):
    r"""Patches of a log-mel spectrogram, each projected, plus a learned embedding of its band and one of its time.

    .. math:: z_{ij} = E\, x_{ij} + e^\mathrm{band}_i + e^\mathrm{time}_j

    With ``one_position`` it is :math:`e_{ij}`, and the class token has one too, as in the official code of ImageBind.
    ``mel_mask`` (b, s) is True where a frame is real; :func:`patchify_clips` treats the others. The class
    token, where there is one, stands first and is always real. Returns (b, n, d) and (b, n). Raises ``ValueError`` as
    :func:`~mmlearn.models.audio.checks.real_frames` does.
    Source: Gong et al. 2021 (AST), section 2.1, which has one embedding a patch; Akbari et al. 2021 (VATT), equation 1,
    for the sum.
    """

    def __init__(self, config: AudioEncoderConfig):
        super().__init__()
        self.config = config
        width, axes = config.width, zip((config.mels, config.frames), config.patch_size, config.stride)
        rows, columns = ((length - size) // step + 1 for length, size, step in axes)
        self.patches = nn.Linear(config.patch_size[0] * config.patch_size[1], width, bias=not config.patch_norm)
        self.patch_norm = nn.LayerNorm(width) if config.patch_norm else nn.Identity()
        self.class_token = nn.Parameter(torch.randn(width) * width**-0.5) if config.class_token else None
        if config.one_position:
            self.positions = nn.Parameter(torch.randn(rows, columns, width) * width**-0.5)
            if config.class_token:
                self.class_position = nn.Parameter(torch.randn(width) * width**-0.5)
        else:
            self.bands = nn.Parameter(torch.randn(rows, width) * width**-0.5)
            self.times = nn.Parameter(torch.randn(columns, width) * width**-0.5)

    def forward(
        self, mel: Float[Tensor, "b mels s"], mel_mask: Bool[Tensor, "b s"] | None = None
    ) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
        real = real_frames(mel, mel_mask, self.config.mels, self.config.frames)
        patches, columns = patchify_clips(mel, real, self.config.patch_size, self.config.stride)
        x = self.patch_norm(self.patches(patches))  # (b, row, column, d)
        if self.config.one_position:
            x = x + self.positions[:, : x.shape[2]]
        else:
            x = x + self.bands[:, None] + self.times[: x.shape[2]]
        mask = repeat(columns, "b column -> b (row column)", row=x.shape[1])
        x = rearrange(x, "b row column d -> b (row column) d")
        if self.class_token is not None:
            class_token = self.class_token + self.class_position if self.config.one_position else self.class_token
            x = torch.cat([repeat(class_token, "d -> b 1 d", b=len(x)).to(x), x], dim=1)  # (b, 1 + row column, d)
            mask = F.pad(mask, (1, 0), value=True)
        return x, mask


class LinearWithExtraToken(nn.Linear):
    """A linear layer of all tokens, followed by a learned vector: (b, n, d) → (b, n + 1, d)."""

    def __init__(self, width: int):
        super().__init__(width, width)
        self.extra = nn.Parameter(torch.randn(width) * width**-0.5)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b more d"]:
        return torch.cat([super().forward(x), repeat(self.extra, "d -> b 1 d", b=len(x)).to(x)], dim=1)


class AudioEncoder(nn.Module):
    """Log-mel → patches → positions → transformer → norm. Returns the tokens, and which of them are real.

    Source: Gong et al. 2021 (AST), section 2.1; the official code of ImageBind for ``extra_key``.
    """

    def __init__(self, config: AudioEncoderConfig):
        super().__init__()
        self.embedding = AudioEmbedding(config)
        self.transformer = Transformer(config)
        self.extra_key = config.extra_key
        if config.extra_key:
            for block in self.transformer.blocks:
                block.attention.key = LinearWithExtraToken(config.width)
                block.attention.value = LinearWithExtraToken(config.width)
            self.transformer.reset_parameters(config.width, config.depth)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)

    def forward(
        self, mel: Float[Tensor, "b mels s"], mel_mask: Bool[Tensor, "b s"] | None = None
    ) -> AudioEncoderOutput:
        x, mask = self.embedding(mel, mel_mask)
        key_mask = F.pad(mask, (0, 1), value=True) if self.extra_key else mask  # the learned key is real
        return AudioEncoderOutput(self.norm(self.transformer(x, key_mask)), mask)
