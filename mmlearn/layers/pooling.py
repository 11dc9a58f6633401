"""From many tokens to few: attention pooling, and picking some tokens of each row."""

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers.attention import Attention


class AttentionPooling(nn.Module):
    r"""Learned queries read the tokens: :math:`y = \mathrm{MultiHead}(Q, X, X)`, with Q a parameter.

    Returns (b, num_queries, d). Source: Lee et al. 2019 (Set Transformer), equation 11; Zhai et al. 2022 (Scaling
    Vision Transformers), section 3.1.
    """

    def __init__(self, width: int, num_heads: int, *, num_queries: int = 1):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_queries, width) * width**-0.5)
        self.attention = Attention(width, num_heads)

    def forward(
        self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b queries d"]:
        queries = repeat(self.queries, "queries d -> b queries d", b=len(x))
        return self.attention(queries, x, mask=mask)


def select_tokens(x: Float[Tensor, "b n d"], position: int | Int[Tensor, "b *r"]) -> Float[Tensor, "b *r d"]:
    """The token of each row at a position: (b, d). With positions (b, r) r tokens of each row: (b, r, d).

    A number is the same position in every row, and -1 the last one.
    """
    if isinstance(position, int):
        return x[:, position]
    row = torch.arange(len(x), device=x.device).view(-1, *[1] * (position.ndim - 1))
    return x[row, position]


def real_tokens_first(mask: Bool[Tensor, "b n"]) -> Int[Tensor, "b n"]:
    """Positions of each row in an order in which the real ones come first. Among themselves they stay as they were."""
    return (~mask).int().argsort(dim=1, stable=True)
