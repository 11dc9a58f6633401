"""Blocks of DETR, which UniT shares: each attention adds positions to its queries and keys, and not to its values.

Source: Carion et al. 2020 (DETR), section A.3 and figure 10.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.layers import Attention, TransformerBlock, TransformerConfig
from mmlearn.layers.embeddings import check_image
from mmlearn.layers.positions import masked_sinusoidal_grid
from mmlearn.models.vision.resnet import ResNetConfig, resnet


class DETRAttention(Attention):
    r"""Attention whose queries and keys hold their positions, :math:`\mathrm{softmax}((x + p) W^Q ((c + r) W^K)^\top)
    V`.

    ``positions`` p are of x, ``context_positions`` r of the context c; without a context both are those of x.
    """

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        positions: Float[Tensor, "*#b q d"],
        context: Float[Tensor, "b n d"] | None = None,
        context_positions: Float[Tensor, "*#b n d"] | None = None,
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        if context is None:
            context, context_positions = x, positions
        located = context if context_positions is None else context + context_positions
        projected = self.query(x + positions), self.key(located), self.value(context)
        query, key, value = (self.split_heads(part) for part in projected)  # (b, h, q, k), (b, h, n, k) twice
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
        positions: Float[Tensor, "*#b q d"],
        mask: Bool[Tensor, "b q"] | None = None,
        context: Float[Tensor, "b n d"] | None = None,
        context_positions: Float[Tensor, "*#b n d"] | None = None,
        context_mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        x = self.residual(x, self.attention_norm, lambda x: self.attention(x, positions, mask=mask))
        if (cross_attention := self.cross_attention) is not None:
            attend: Callable[[Tensor], Tensor] = lambda x: cross_attention(  # noqa: E731
                x, positions, context, context_positions, context_mask
            )
            x = self.residual(x, self.cross_attention_norm, attend)
        return self.residual(x, self.mlp_norm, self.mlp)


class DETREncoder(nn.Module):
    """A backbone, a 1 × 1 convolution, and blocks that read its feature map.

    With more than 3 ``channels`` it reads the feature map of a frozen network, and has no backbone of its own.
    """

    def __init__(self, config: TransformerConfig, backbone: ResNetConfig, channels: int = 3):
        super().__init__()
        width = config.width
        self.channels = channels
        self.backbone = resnet(backbone) if channels == 3 else nn.Identity()
        self.projection = nn.Linear(backbone.widths[-1] if channels == 3 else channels, width)
        self.blocks = nn.ModuleList(DETRBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, config.norm_epsilon) if config.norm_first else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        initialise_as_detr(self.blocks)

    def embed_image(
        self, image: Float[Tensor, "b c height width"], pixel_mask: Bool[Tensor, "b height width"] | None = None
    ) -> tuple[Float[Tensor, "b p d"], Float[Tensor, "b p d"], Bool[Tensor, "b p"]]:
        """The feature map, projected, its positions, and which of them are of real pixels.

        ``pixel_mask`` is True where a pixel is real. ``ValueError`` for pictures that are not float (b, channels,
        height, width).
        """
        check_image(image, 1, self.channels)
        features = self.backbone(image)  # (b, c, row, column)
        rows, columns = features.shape[2:]
        if pixel_mask is None:
            mask = torch.ones(len(image), rows, columns, dtype=torch.bool, device=image.device)
        else:  # each position is as its nearest pixel is
            mask = F.interpolate(pixel_mask[None].float(), (rows, columns))[0].bool()
        x = self.projection(rearrange(features, "b c row column -> b (row column) c"))  # (b, p, d)
        return x, masked_sinusoidal_grid(mask, x.shape[-1]).to(x), mask.flatten(1)

    def forward(
        self, x: Float[Tensor, "b p d"], positions: Float[Tensor, "b p d"], mask: Bool[Tensor, "b p"]
    ) -> Float[Tensor, "b p d"]:
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, positions, mask)
        return self.norm(x)


class DETRDecoder(nn.Module):
    """Blocks whose queries start at 0, differ by learned positions, and attend to a context."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.blocks = nn.ModuleList(DETRBlock(config, decoder=True) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, config.norm_epsilon)
        initialise_as_detr(self.blocks)
        # All queries are 0 in the first self-attention, so that only the biases of values have an effect.
        first = self.blocks[0].attention
        for unused in (first.query, first.key):
            unused.requires_grad_(False)
        first.value.weight.requires_grad_(False)

    def forward(
        self,
        queries: Float[Tensor, "q d"],
        context: Float[Tensor, "b n d"],
        positions: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "b n"],
    ) -> list[Float[Tensor, "b q d"]]:
        """The queries after each block, normalised."""
        query_positions = queries.expand(len(context), -1, -1)  # (b, q, d)
        x, states = torch.zeros_like(query_positions), []
        for block in self.blocks:
            x = block(x, query_positions, None, context, positions, mask)
            states.append(self.norm(x))
        return states


class BoxHead(nn.Module):
    """Three layers that end in a box: middle, width and height between 0 and 1."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise([width] * 3 + [4]))

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... 4"]:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x).sigmoid()


def initialise_as_detr(module: nn.Module) -> None:
    """Matrices from Xavier's uniform distribution, biases of attention 0. Source: official code of DETR."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
        if isinstance(part, Attention):
            for layer in (part.query, part.key, part.value, part.output):
                nn.init.zeros_(layer.bias)
