"""Swin: a transformer with attention in small windows, whose tokens become fewer and wider from stage to stage.

Tokens stay on a grid, (b, rows, columns, d). Source: Liu et al. 2021, "Swin Transformer: Hierarchical
Vision Transformer using Shifted Windows"; official code https://github.com/microsoft/Swin-Transformer. The audio tower
of CLAP is one (Chen et al. 2022, HTS-AT).
"""

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import Config, TransformerBlock, TransformerConfig


@dataclass(frozen=True)
class SwinConfig(Config):
    width: int  # of the first stage; each later one is twice as wide
    depths: tuple[int, ...]  # blocks of each stage
    num_heads: tuple[int, ...]  # of each stage
    window: int  # tokens on each side of a window
    activation: str = "gelu"
    dropout: float = 0.0
    attention_dropout: float | None = 0.0  # of attention weights; None: dropout

    def stage(self, i: int) -> TransformerConfig:
        """The settings of the blocks of stage i, counted from 0."""
        width = self.width * 2**i
        dropouts: dict[str, Any] = dict(dropout=self.dropout, attention_dropout=self.attention_dropout)
        return TransformerConfig(width, self.depths[i], self.num_heads[i], activation=self.activation, **dropouts)


class SwinBlock(TransformerBlock):
    r"""A pre-norm block whose attention stays within windows of ``window`` × ``window`` tokens.

    .. math:: \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt k} + B\right) V, \quad
       B_{ij} = \hat B[\,\mathrm{row}_i - \mathrm{row}_j,\; \mathrm{column}_i - \mathrm{column}_j\,]

    B is learned, a bias for each distance of two tokens. With ``shift`` the windows lie that many tokens lower and
    further right, so that neighbours attend to each other that other blocks separate: the grid is rolled, and a mask
    separates tokens that share a window only because of the rolling.

    Attention is recorded as (b · windows, h, n, n). Raises ``ValueError`` for a grid that windows do not fill.
    Source: Liu et al. 2021, section 3.2, equations 3 and 4 and figure 4.
    """

    def __init__(self, config: TransformerConfig, window: int, shift: int = 0):
        super().__init__(config)
        self.window, self.shift = window, shift
        self.position_bias = nn.Parameter(torch.empty((2 * window - 1) ** 2, config.num_heads))
        nn.init.trunc_normal_(self.position_bias, std=0.02)

    def forward(self, x: Float[Tensor, "b rows columns d"]) -> Float[Tensor, "b rows columns d"]:
        x = self.residual(x, self.attention_norm, self.window_attention)
        return self.residual(x, self.mlp_norm, self.mlp)

    def window_attention(self, x: Float[Tensor, "b rows columns d"]) -> Float[Tensor, "b rows columns d"]:
        b, rows, columns, _ = x.shape
        size, shift = self.window, self.shift
        if rows % size or columns % size:
            raise ValueError(f"Windows of {size} × {size} tokens do not fill a grid of {rows} × {columns}.")
        mask = None
        if shift:
            x = x.roll((-shift, -shift), (1, 2))
            mask = repeat(shift_mask(rows, columns, size, shift, x.device), "window q n -> (b window) q n", b=b)
        tokens = rearrange(x, "b (row y) (column x) d -> (b row column) (y x) d", y=size, x=size)
        bias = self.position_bias.T[:, relative_position_index(size, x.device)]  # (h, n, n)
        tokens = self.attention(tokens, mask=mask, bias=bias[None])  # (b windows, n, d)
        split = dict(row=rows // size, column=columns // size, y=size)
        x = rearrange(tokens, "(b row column) (y x) d -> b (row y) (column x) d", **split)
        return x.roll((shift, shift), (1, 2)) if shift else x


def relative_position_index(window: int, device: torch.device | None = None) -> Int[Tensor, "n n"]:
    """The row of the bias table for each two tokens of a window, which are counted row by row."""
    position = torch.arange(window, device=device)
    distance = position[:, None] - position + window - 1  # along one axis, from 0
    index = distance[:, None, :, None] * (2 * window - 1) + distance[:, None]  # (y, x, other y, other x)
    return index.reshape(window**2, window**2)


def shift_mask(
    rows: int, columns: int, window: int, shift: int, device: torch.device | None = None
) -> Bool[Tensor, "windows n n"]:
    """Which tokens of each window were neighbours before the grid was rolled by ``shift``."""
    row, column = (torch.arange(size, device=device) >= size - shift for size in (rows, columns))
    region = row[:, None] * 2 + column  # (rows, columns): what was rolled round, by row, by column or both
    region = rearrange(region, "(row y) (column x) -> (row column) (y x)", y=window, x=window)
    return region[:, :, None] == region[:, None]


class PatchMerging(nn.Module):
    r"""Each 2 × 2 tokens become one of twice the width: :math:`W\, \mathrm{LN}([x_{00}; x_{10}; x_{01}; x_{11}])`.

    Source: Liu et al. 2021, section 3.1.
    """

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Float[Tensor, "b rows columns d"]) -> Float[Tensor, "b half_rows half_columns double"]:
        x = rearrange(x, "b (row y) (column x) d -> b row column (x y d)", y=2, x=2)
        return self.reduction(self.norm(x))


class Swin(nn.Module):
    """Stages of blocks, of which every second one shifts its windows. Between stages tokens are merged.

    ``grid`` has the rows and columns of the tokens that come in. A stage that has fewer tokens than a window has a
    single window. Returns (b, rows', columns', d · 2^(stages − 1)); no norm follows. Raises ``ValueError`` where the
    grid of a stage cannot be merged or windows do not fill it.
    Source: Liu et al. 2021, figure 3 and section 3.1.
    """

    def __init__(self, config: SwinConfig, grid: tuple[int, int]):
        super().__init__()
        if len(config.depths) != len(config.num_heads):
            got = f"{config.depths} and {config.num_heads}"
            raise ValueError(f"Each stage has a depth and a number of heads; got {got}.")
        self.stages = nn.ModuleList()
        self.merging = nn.ModuleList()
        for i, depth in enumerate(config.depths):
            block, size = config.stage(i), [side // 2**i for side in grid]
            window = min(config.window, *size)
            if any(side % 2**i for side in grid) or not window or any(side % window for side in size):
                raise ValueError(
                    f"Stage {i} has {grid[0] / 2**i:g} × {grid[1] / 2**i:g} tokens, which windows of {config.window} × "
                    f"{config.window} do not fill; change the image, the patch or the window."
                )
            shift = window // 2 if min(size) > window else 0
            if i:
                self.merging.append(PatchMerging(block.width // 2))
            self.stages.append(nn.Sequential(*(SwinBlock(block, window, shift * (k % 2)) for k in range(depth))))
        self.reset_parameters(sum(config.depths))

    def reset_parameters(self, depth: int) -> None:
        """As in :class:`~mmlearn.layers.Transformer`, so that activations keep their size."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                ends_branch = name.endswith((".output", ".contract"))
                nn.init.normal_(module.weight, std=(module.in_features * (2 * depth if ends_branch else 1)) ** -0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Float[Tensor, "b rows columns d"]) -> Float[Tensor, "b last_rows last_columns last_width"]:
        x = self.stages[0](x)
        for merge, stage in zip(self.merging, self.stages[1:]):
            x = stage(merge(x))
        return x
