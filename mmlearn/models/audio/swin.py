"""Swin: a transformer whose tokens look around in small windows, and become fewer and wider from stage to stage.

Tokens keep their place on a grid, (b, rows, columns, d). Source: Liu et al. 2021, "Swin Transformer: Hierarchical
Vision Transformer using Shifted Windows"; official code https://github.com/microsoft/Swin-Transformer. CLAP hears with
one (Chen et al. 2022, HTS-AT).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers.padded import Attention, TransformerBlock

# A window is a head more: its tokens attend each other, and nothing else.
SPLIT = "b (row y) (column x) (h k) -> b (row column) h (y x) k"


class WindowAttention(Attention):
    r"""Attention within windows of ``window`` × ``window`` tokens, with a learned bias for how far apart two are.

    .. math:: \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt k} + B\right) V, \quad
       B_{ij} = \hat B[\,\mathrm{row}_i - \mathrm{row}_j,\; \mathrm{column}_i - \mathrm{column}_j\,]

    With ``shift`` the windows stand so many tokens lower and further right, so that neighbours meet which other windows
    keep apart. The grid is rolled for this; what then shares a window across the border of the picture is masked.

    Attention is recorded as (b · windows, h, n, n). Raises ``ValueError`` for a grid that windows do not fill.
    Source: Liu et al. 2021, section 3.2, equation 4 and figure 4.
    """

    def __init__(self, width: int, num_heads: int, window: int, *, shift: int = 0, dropout: float = 0.0):
        super().__init__(width, num_heads, dropout=dropout)
        self.window, self.shift = window, shift
        self.position_bias = nn.Parameter(torch.empty((2 * window - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.position_bias, std=0.02)

    def forward(self, x: Float[Tensor, "b rows columns d"]) -> Float[Tensor, "b rows columns d"]:
        rows, columns = x.shape[1:3]
        size = self.window
        if rows % size or columns % size:
            raise ValueError(f"Windows of {size} × {size} tokens do not fill a grid of {rows} × {columns}.")
        x = x.roll((-self.shift, -self.shift), (1, 2)) if self.shift else x
        query, key, value = (
            rearrange(projected, SPLIT, h=self.num_heads, y=size, x=size)
            for projected in (self.query(x) * (x.shape[-1] // self.num_heads) ** -0.5, self.key(x), self.value(x))
        )
        bias = self.position_bias.T[:, relative_places(size, x.device)]  # (h, n, n)
        if self.shift:
            apart = ~same_side(rows, columns, size, self.shift, x.device)
            bias = bias.masked_fill(apart[:, None], torch.finfo(x.dtype).min / 2)  # the same for all heads
        weights = (query @ key.mT + bias).softmax(-1)
        if self.recorder is not None:
            self.recorder(rearrange(weights, "b window h q n -> (b window) h q n"))
        heads = F.dropout(weights, self.dropout if self.training else 0.0) @ value
        x = rearrange(heads, "b (row column) h (y x) k -> b (row y) (column x) (h k)", row=rows // size, y=size, x=size)
        x = self.output(x)
        return x.roll((self.shift, self.shift), (1, 2)) if self.shift else x


def relative_places(window: int, device: torch.device | None = None) -> Int[Tensor, "n n"]:
    """For each two tokens of a window, row by row: which row of the bias table says how far apart they are."""
    place = torch.arange(window, device=device)
    apart = place[:, None] - place + window - 1  # from 0
    both = apart[:, None, :, None] * (2 * window - 1) + apart[:, None]  # (y, x, other y, other x)
    return both.reshape(window**2, window**2)


def same_side(
    rows: int, columns: int, window: int, shift: int, device: torch.device | None = None
) -> Bool[Tensor, "windows n n"]:
    """After the grid was rolled by ``shift``: which tokens of a window were not brought together by the rolling."""
    row, column = (torch.arange(size, device=device) >= size - shift for size in (rows, columns))
    side = row[:, None] * 2 + column
    side = rearrange(side, "(row y) (column x) -> (row column) (y x)", y=window, x=window)
    return side[:, :, None] == side[:, None]


class SwinBlock(TransformerBlock):
    """A pre-norm block on a grid, with attention in windows. Source: Liu et al. 2021, equation 3."""

    def __init__(self, width: int, num_heads: int, window: int, *, shift: int = 0, dropout: float = 0.0, **block):
        super().__init__(width, num_heads, dropout=dropout, **block)
        self.attention = WindowAttention(width, num_heads, window, shift=shift, dropout=dropout)

    def forward(self, x: Float[Tensor, "b rows columns d"]) -> Float[Tensor, "b rows columns d"]:
        x = self._residual(x, self.attention_norm, self.attention)
        return self._residual(x, self.mlp_norm, self.mlp)


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
    """Stages of blocks, of which every second one shifts its windows; before all but the first, tokens are merged.

    ``depths`` and ``num_heads`` are those of each stage, ``grid`` the rows and columns of tokens that come in. A stage
    with fewer tokens than a window has one window. Returns (b, rows', columns', d · 2^(stages − 1)); no norm follows.

    Raises ``ValueError`` where the grid of a stage cannot be merged or windows do not fill it.
    Source: Liu et al. 2021, figure 3 and section 3.1.
    """

    def __init__(
        self,
        width: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        window: int,
        grid: tuple[int, int],
        **block,
    ):
        super().__init__()
        if len(depths) != len(num_heads):
            raise ValueError(f"Each stage has a depth and a number of heads; got {depths} and {num_heads}.")
        self.stages = nn.ModuleList()
        self.merging = nn.ModuleList()
        for stage, (depth, heads) in enumerate(zip(depths, num_heads)):
            size, wide = [side // 2**stage for side in grid], width * 2**stage
            here = min(window, *size)
            if any(side % 2**stage for side in grid) or not here or any(side % here for side in size):
                raise ValueError(
                    f"Stage {stage} has {grid[0] / 2**stage:g} × {grid[1] / 2**stage:g} tokens, which windows of "
                    f"{window} × {window} do not fill; change the picture, the patch or the window."
                )
            shift = here // 2 if min(size) > here else 0
            if stage:
                self.merging.append(PatchMerging(wide // 2))
            self.stages.append(
                nn.Sequential(*(SwinBlock(wide, heads, here, shift=shift * (i % 2), **block) for i in range(depth)))
            )
        self.reset_parameters(sum(depths))

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
