"""Fewer tokens: DropToken keeps a random part of them in training, pooling makes one vector of them."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class KeptTokens(NamedTuple):
    """The kept tokens of a sequence, their mask, and their positions in it."""

    tokens: Float[Tensor, "b k d"]
    mask: Bool[Tensor, "b k"]
    position: Int[Tensor, "b k"]


def drop_tokens(
    x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None, rate: float, generator: torch.Generator
) -> KeptTokens:
    r"""DropToken: keep a random part of the tokens of each row, in their order.

    .. math:: k_i = \lceil (1 - r)\, n_i \rceil, \quad k = \lceil (1 - r)\, n \rceil

    Every row loses the same share of its real tokens: k_i of n_i are kept, and k - k_i tokens of padding follow.
    Tokens need their positions beforehand. With ``rate`` 0 all tokens are returned and nothing is drawn. Raises
    ``ValueError`` for a rate that is not at least 0 and below 1. Source: Akbari et al. 2021 (VATT), section 3.1.1.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"The share of tokens to drop is at least 0 and below 1, got {rate}.")
    b, n, _ = x.shape
    mask = torch.ones(b, n, dtype=torch.bool, device=x.device) if mask is None else mask
    if rate == 0:
        return KeptTokens(x, mask, torch.arange(n, device=x.device).expand(b, n))
    noise = torch.rand((b, n), generator=generator, device=generator.device).to(x.device)
    most = math.ceil(n * (1 - rate) - 1e-9)  # as floats, 10 · 0.3 is above 3
    drawn = noise.masked_fill(~mask, 2).argsort(1)[:, :most]  # (b, k): real ones first, in random order
    k = (mask.sum(1).double() * (1 - rate) - 1e-9).ceil()  # (b,)
    kept = torch.arange(drawn.shape[1], device=x.device) < k[:, None]
    position, order = drawn.masked_fill(~kept, n).sort(1)  # padding goes last
    position = torch.where(position == n, drawn.gather(1, order), position)
    return KeptTokens(x.gather(1, position[..., None].expand(-1, -1, x.shape[2])), kept.gather(1, order), position)


def masked_max(x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b d"]:
    """The largest value of each feature over the tokens that are real; zeros where none is."""
    if mask is None:
        return x.amax(1)
    return x.masked_fill(~mask[..., None], -torch.inf).amax(1).masked_fill(~mask.any(1, keepdim=True), 0)
