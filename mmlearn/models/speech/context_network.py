"""The context network of speech models: convolutional positions, then a transformer over frames.

Source: Baevski et al. 2020 (wav2vec 2.0), section 2; Shi et al. 2022 (AV-HuBERT), section 3.2.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.layers import Transformer, TransformerConfig


@dataclass(frozen=True)
class ContextConfig(TransformerConfig):
    position_kernel: int = 128  # frames, of the convolution that makes positions
    position_groups: int = 16


TINY_CONTEXT: dict[str, Any] = dict(width=64, depth=3, num_heads=2, position_kernel=16, position_groups=4, dropout=0.0)


class ConvolutionalPositions(nn.Module):
    r"""Positions from neighbouring frames: a wide grouped convolution with weight normalisation.

    .. math:: \mathrm{GELU}(w * x + b), \quad
       w_{\cdot\cdot i} = g_i \frac{v_{\cdot\cdot i}}{\lVert v_{\cdot\cdot i} \rVert}

    for each position i of the kernel. To be added to x, (b, s, d). Padding must be 0. Raises ``ValueError`` where
    ``width`` is no multiple of ``groups``.
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
        weight = self.direction * (self.length / self.direction.norm(dim=(0, 1)))  # (d, d / groups, kernel)
        kernel = weight.shape[-1]
        x = F.pad(x.mT, (kernel // 2, (kernel - 1) // 2))  # an even kernel reaches one frame farther back than ahead
        return F.gelu(F.conv1d(x, weight, self.bias, groups=self.groups)).mT  # (b, s, d)


class ContextNetwork(nn.Module):
    """Frames (b, s, d), to which positions are added, through the blocks of a transformer.

    ``mask`` is True where a frame is real; outputs at other frames are undefined. With ``norm_first`` blocks
    are pre-norm and a norm follows the last one; else they are post-norm and a norm comes before the first one. With
    ``depth`` only that many blocks are computed, without the last norm.
    Source: Baevski et al. 2020 (wav2vec 2.0), section 2 and official code.
    """

    def __init__(self, config: ContextConfig):
        super().__init__()
        self.norm_first = config.norm_first
        self.positions: nn.Module = ConvolutionalPositions(config.width, config.position_kernel, config.position_groups)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.transformer = Transformer(config)

    def forward(
        self, x: Float[Tensor, "b s d"], mask: Bool[Tensor, "b s"], depth: int | None = None
    ) -> Float[Tensor, "b s d"]:
        x = x.masked_fill(~mask[..., None], 0)  # positions come from neighbours, and padding is not one
        x = x + self.positions(x)
        x = self.dropout(x if self.norm_first else self.norm(x))
        for block in self.transformer.blocks[:depth]:
            x = block(x, mask)
        return self.norm(x) if self.norm_first and depth is None else x


def mask_frames(
    x: Float[Tensor, "b s d"], masked: Bool[Tensor, "b s"] | None, mask_embedding: Float[Tensor, "d"]
) -> Float[Tensor, "b s d"]:
    """The frames x, with the ``mask_embedding`` in place of those that are ``masked``.

    Raises ``ValueError`` for a ``masked`` that is not boolean (b, s).
    """
    if masked is None:
        return x
    if masked.dtype != torch.bool or masked.shape != x.shape[:2]:
        wanted, got = tuple(x.shape[:2]), f"{masked.dtype} {tuple(masked.shape)}"
        raise ValueError(f"masked is boolean (b, s) = {wanted}, True where a frame is masked; got {got}.")
    return torch.where(masked[..., None], mask_embedding.to(x), x)
