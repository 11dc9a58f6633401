"""The image encoder that BEiT and data2vec share: relative positions in attention, branches that start small.

Source: Bao et al. 2022 (BEiT), sections 2.3 and 2.5; Liu et al. 2021 (Swin), equation 4, for the bias; Touvron et al.
2021 (CaiT), equation 4, for the scale of a branch.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import ImageEmbedding, Transformer, TransformerBlock, TransformerConfig, patchify
from mmlearn.layers.embeddings import check_image


@dataclass(frozen=True)
class RelativeEncoderConfig(TransformerConfig):
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    norm_epsilon: float = 1e-12
    image_size: int | tuple[int, int] = 224  # pixels; (height, width) where they differ
    patch_size: int = 16  # pixels
    mask_token: bool = True  # that replaces hidden patches
    absolute_positions: bool = False  # learned ones, added to the patches
    relative_positions: str = "shared"  # by all blocks; "blocks": a table for each; "none"
    layer_scale: float = 0.1  # of each residual branch, at the start; 0: no scale


LARGE_RELATIVE = RelativeEncoderConfig(1024, 24, 16, layer_scale=1e-5)


class ScaledBlock(TransformerBlock):
    r"""A pre-norm block with LayerScale: each feature of its branches is multiplied by a learned scale.

    .. math:: x \leftarrow x + \lambda \odot f(\mathrm{LN}(x))

    Source: Touvron et al. 2021 (CaiT), LayerScale.
    """

    def __init__(self, config: RelativeEncoderConfig):
        super().__init__(config)
        self.attention.key.register_parameter("bias", None)  # the softmax cancels it
        scale = config.layer_scale
        self.attention_scale = nn.Parameter(torch.full((config.width,), scale)) if scale else None
        self.mlp_scale = nn.Parameter(torch.full((config.width,), scale)) if scale else None

    def forward(
        self, x: Float[Tensor, "b n d"], bias: Float[Tensor, "1 h n n"] | None = None
    ) -> Float[Tensor, "b n d"]:
        attend = lambda x: scaled(self.attention(x, bias=bias), self.attention_scale)  # noqa: E731
        x = self.residual(x, self.attention_norm, attend)
        return self.residual(x, self.mlp_norm, lambda x: scaled(self.mlp(x), self.mlp_scale))


def scaled(x: Float[Tensor, "b n d"], scale: Float[Tensor, "d"] | None) -> Float[Tensor, "b n d"]:
    """Each feature times its scale, where there is one."""
    return x if scale is None else x * scale


class ScaledTransformer(Transformer):
    """As many :class:`ScaledBlock` as the configuration says. Weights start as in every transformer here."""

    def __init__(self, config: RelativeEncoderConfig):
        nn.Module.__init__(self)  # not Transformer's, which would build plain blocks
        self.blocks = nn.ModuleList(ScaledBlock(config) for _ in range(config.depth))
        self.reset_parameters(config.width, config.depth)


def relative_position_index(rows: int, columns: int, device: torch.device) -> Int[Tensor, "n n"]:
    """The row of the bias table for each pair of tokens: the offset of their patches.

    The last three rows are of the class token to a patch, of a patch to the class token, and of that to itself.
    Source: Bao et al. 2022 (BEiT), official code.
    """
    steps = (torch.arange(count, device=device) for count in (rows, columns))
    down, across = (coordinate.flatten() for coordinate in torch.meshgrid(*steps, indexing="ij"))  # (p,) each
    offset = (down[:, None] - down + rows - 1) * (2 * columns - 1) + across[:, None] - across + columns - 1
    index, offsets = F.pad(offset, (1, 0, 1, 0)), (2 * rows - 1) * (2 * columns - 1)  # (1 + p, 1 + p)
    index[0, :], index[:, 0] = offsets, offsets + 1
    index[0, 0] = offsets + 2
    return index


class RelativeBias(nn.Module):
    """What each head adds to the score of two patches, by their relative position.

    For an image with another grid the table is interpolated, as in Transformers.
    """

    def __init__(self, grid: tuple[int, int], num_heads: int):
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.zeros((2 * grid[0] - 1) * (2 * grid[1] - 1) + 3, num_heads))

    def forward(self, grid: tuple[int, int]) -> Float[Tensor, "1 h n n"]:
        table: Tensor = self.table
        if grid != self.grid:
            offsets = rearrange(table[:-3], "(row column) h -> 1 h row column", row=2 * self.grid[0] - 1)
            offsets = F.interpolate(offsets, (2 * grid[0] - 1, 2 * grid[1] - 1), mode="bilinear")
            table = torch.cat([rearrange(offsets, "1 h row column -> (row column) h"), table[-3:]])
        index = relative_position_index(*grid, table.device)  # (n, n)
        return rearrange(table[index], "q n h -> 1 h q n")


class RelativeEncoder(nn.Module):
    """Patches → hidden ones → class token → blocks with relative positions. Returns (b, n, d) without a last norm.

    ``masked_patches`` (b, p) are True where the mask token replaces a patch. Raises ``ValueError`` for unknown
    positions, for hidden patches without a mask token or of another shape, and as
    :class:`~mmlearn.layers.ImageEmbedding` does. Source: Bao et al. 2022 (BEiT), official code.
    """

    def __init__(self, config: RelativeEncoderConfig):
        super().__init__()
        tables = {"none": 0, "shared": 1, "blocks": config.depth}
        if config.relative_positions not in tables or not config.norm_first:
            known = ", ".join(tables)
            raise ValueError(f"Blocks are pre-norm, and relative positions {known}, not {config.relative_positions!r}.")
        self.config = config
        self.embedding = ImageEmbedding(config.image_size, config.patch_size, config.width)
        if not config.absolute_positions:
            self.embedding.register_parameter("positions", None)
        self.mask_token = nn.Parameter(0.02 * torch.randn(config.width)) if config.mask_token else None
        self.dropout = nn.Dropout(config.dropout)
        grid, count = self.embedding.grid, tables[config.relative_positions]
        self.relative = nn.ModuleList(RelativeBias(grid, config.num_heads) for _ in range(count))
        self.transformer = ScaledTransformer(config)

    def embed(
        self, image: Float[Tensor, "b 3 height width"], masked_patches: Bool[Tensor, "b p"] | None
    ) -> Float[Tensor, "b n d"]:
        embedding, size = self.embedding, self.config.patch_size
        grid = check_image(image, size)
        x = embedding.patches(patchify(image, size))  # (b, p, d)
        if masked_patches is not None:
            if self.mask_token is None or masked_patches.shape != x.shape[:2] or masked_patches.dtype != torch.bool:
                got = f"{masked_patches.dtype} {tuple(masked_patches.shape)}"
                raise ValueError(
                    f"To hide patches, mask_token is True and they are bool {tuple(x.shape[:2])}; got {got}."
                )
            x = torch.where(masked_patches[..., None], self.mask_token.to(x), x)
        class_token = embedding.get_parameter("class_token").to(x).expand(len(x), 1, -1)
        x = torch.cat([class_token, x], 1)  # (b, 1 + p, d)
        return self.dropout(x if embedding.positions is None else x + embedding._positions(grid))

    def forward(
        self, image: Float[Tensor, "b 3 height width"], masked_patches: Bool[Tensor, "b p"] | None = None
    ) -> Float[Tensor, "b n d"]:
        x, grid = self.embed(image, masked_patches), check_image(image, self.config.patch_size)
        shared = self.relative[0](grid) if len(self.relative) == 1 else None
        for i, block in enumerate(self.transformer.blocks):
            x = block(x, self.relative[i](grid) if len(self.relative) > 1 else shared)
        return x
