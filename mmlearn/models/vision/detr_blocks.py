"""What DETR and UniT share: blocks in which places are told to queries and keys of each attention anew, not to values.

Source: Carion et al. 2020 (DETR), section A.3 and figure 10.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.layers import Attention, TransformerBlock, TransformerConfig
from mmlearn.layers.embeddings import check_image
from mmlearn.models.vision.resnet import ResNetConfig, resnet


class DETRAttention(Attention):
    r"""Attention whose queries and keys know their places, :math:`\mathrm{softmax}((x + p) W^Q ((c + r) W^K)^\top) V`.

    ``places`` p are of x, ``context_places`` r of the context c; without a context both are those of x.
    """

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        places: Float[Tensor, "*#b q d"],
        context: Float[Tensor, "b n d"] | None = None,
        context_places: Float[Tensor, "*#b n d"] | None = None,
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        context, context_places = (x, places) if context is None else (context, context_places)
        parts = self.query(x + places), self.key(context + context_places), self.value(context)
        query, key, value = (self.split_heads(part) for part in parts)
        return self.output(self.heads(query, key, value, mask, False, None).transpose(1, 2).flatten(2))


class DETRBlock(TransformerBlock):
    """A block of :class:`DETRAttention`; with ``decoder`` it attends to a context as well."""

    def __init__(self, config: TransformerConfig, decoder: bool = False):
        super().__init__(config, config.width if decoder else None)
        dropout = config.dropout if config.attention_dropout is None else config.attention_dropout
        self.attention = DETRAttention(config.width, config.num_heads, dropout=dropout)
        if decoder:
            self.cross_attention = DETRAttention(config.width, config.num_heads, dropout=dropout)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        places: Float[Tensor, "*#b q d"],
        mask: Bool[Tensor, "b q"] | None = None,
        context: Float[Tensor, "b n d"] | None = None,
        context_places: Float[Tensor, "*#b n d"] | None = None,
        context_mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        x = self.residual(x, self.attention_norm, lambda x: self.attention(x, places, mask=mask))
        if self.cross_attention is not None:
            look: Callable[[Tensor], Tensor] = lambda x: self.cross_attention(  # noqa: E731
                x, places, context, context_places, context_mask
            )
            x = self.residual(x, self.cross_attention_norm, look)
        return self.residual(x, self.mlp_norm, self.mlp)


class DETREncoder(nn.Module):
    """A backbone, a 1 × 1 convolution, and blocks that read the places of its feature map."""

    def __init__(self, config: TransformerConfig, backbone: ResNetConfig):
        super().__init__()
        width = config.width
        self.backbone = resnet(backbone)
        self.projection = nn.Linear(backbone.widths[-1], width)
        self.blocks = nn.ModuleList(DETRBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, config.norm_epsilon) if config.norm_first else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        start_as_xavier(self.blocks)

    def see(
        self, image: Float[Tensor, "b 3 height width"], pixel_mask: Bool[Tensor, "b height width"] | None = None
    ) -> tuple[Float[Tensor, "b p d"], Float[Tensor, "b p d"], Bool[Tensor, "b p"]]:
        """Of each place of the feature map what is there, where it is, and whether it is of real pixels.

        ``pixel_mask`` is True where a pixel is real. ``ValueError`` for pictures that are not float (b, 3, height,
        width).
        """
        check_image(image, 1)
        features = self.backbone(image)
        rows, columns = features.shape[2:]
        if pixel_mask is None:
            real = torch.ones(len(image), rows, columns, dtype=torch.bool, device=image.device)
        else:
            real = real_places(pixel_mask, rows, columns)
        x = self.projection(rearrange(features, "b c row column -> b (row column) c"))
        return x, grid_places(real, x.shape[-1]).to(x), real.flatten(1)

    def forward(
        self, x: Float[Tensor, "b p d"], places: Float[Tensor, "b p d"], mask: Bool[Tensor, "b p"]
    ) -> Float[Tensor, "b p d"]:
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, places, mask)
        return self.norm(x)


class DETRDecoder(nn.Module):
    """Blocks whose queries begin at 0, are told apart by places of their own, and look at a context."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.blocks = nn.ModuleList(DETRBlock(config, decoder=True) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, config.norm_epsilon)
        start_as_xavier(self.blocks)
        # The first self-attention finds 0 at all queries, so that only its biases say anything.
        first = self.blocks[0].attention
        for idle in (first.query, first.key):
            idle.requires_grad_(False)
        first.value.weight.requires_grad_(False)

    def forward(
        self,
        queries: Float[Tensor, "q d"],
        context: Float[Tensor, "b n d"],
        places: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "b n"],
    ) -> list[Float[Tensor, "b q d"]]:
        """The queries after each block, normalised."""
        own = queries.expand(len(context), -1, -1)
        x, found = torch.zeros_like(own), []
        for block in self.blocks:
            x = block(x, own, None, context, places, mask)
            found.append(self.norm(x))
        return found


class BoxHead(nn.Module):
    """Three layers that end in a box: middle, width and height between 0 and 1."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise([width] * 3 + [4]))

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... 4"]:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x).sigmoid()


def start_as_xavier(module: nn.Module) -> None:
    """Matrices from Xavier's uniform distribution, biases of attention 0. Source: official code of DETR."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
        if isinstance(part, Attention):
            for layer in (part.query, part.key, part.value, part.output):
                nn.init.zeros_(layer.bias)


def grid_places(
    real: Bool[Tensor, "b row column"], width: int, temperature: float = 10_000.0
) -> Float[Tensor, "b p width"]:
    r"""Sines and cosines of each place's row, then of its column, both counted from 1 and as shares of 2π.

    .. math:: [\sin(y / T^{4i/d}),\; \cos(y / T^{4i/d})]_{i < d/4}, \quad y = 2 \pi \frac{\text{row}}{\text{rows}}

    Only real places count, so that of a padded picture the last real row has 2π as well. Raises ``ValueError`` where
    the width is no multiple of four. Source: Carion et al. 2020 (DETR), section A.4, and official code.
    """
    if width % 4:
        raise ValueError(f"Sines and cosines of two axes need a width that is a multiple of 4, got {width}.")
    counted = real.float()
    rate = temperature ** (4 * torch.arange(width // 4, device=real.device) / width)
    waves = []
    for axis in (1, 2):
        place = counted.cumsum(axis)
        last = place.narrow(axis, place.shape[axis] - 1, 1)
        angle = (place / (last + 1e-6) * 2 * math.pi)[..., None] / rate
        waves.append(torch.stack([angle.sin(), angle.cos()], -1).flatten(3))
    return rearrange(torch.cat(waves, -1), "b row column d -> b (row column) d")


def real_places(pixel_mask: Bool[Tensor, "b height width"], rows: int, columns: int) -> Bool[Tensor, "b row column"]:
    """Which places of a feature map are of real pixels: those of its nearest pixel."""
    return F.interpolate(pixel_mask[None].float(), (rows, columns))[0].bool()
