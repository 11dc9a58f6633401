"""Attention heads that do something that has a name: how often a head looks most at the right position.

Where a query may look and where it should are two boolean (b, q, n). Queries that should look nowhere are not asked.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class HeadTargets(NamedTuple):
    """Where each query may look, and where it should."""

    may: Bool[Tensor, "b q n"]
    should: Bool[Tensor, "b q n"]


def previous_token(
    tokens: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"], special: int = 4, causal: bool = False
) -> HeadTargets:
    """A head that looks at the token before. Special tokens, below ``special``, are not asked, nor is padding seen."""
    seen, real = _seen(mask, causal), mask & (tokens >= special)
    n = tokens.shape[1]
    before = torch.eye(n, dtype=torch.bool).roll(-1, 1).tril()
    return HeadTargets(seen, before & real[:, :, None] & real[:, None, :])


def same_token(
    tokens: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"], special: int = 4, causal: bool = False
) -> HeadTargets:
    """A head that looks at the same token elsewhere; at itself it may not look."""
    other = _seen(mask, causal) & ~torch.eye(tokens.shape[1], dtype=torch.bool)
    real = tokens >= special
    same = tokens[:, :, None] == tokens[:, None, :]
    return HeadTargets(other, same & other & real[:, :, None] & real[:, None, :])


def matching_bracket(partner: Int[Tensor, "b n"], far: int = 3) -> HeadTargets:
    """A head that finds, one token before a bracket is closed, the bracket that it belongs to, as left to right needs.

    ``partner`` has for each closing bracket the place of the one that opened it, and -1 elsewhere. Only those are asked
    that stand ``far`` positions apart or more.
    """
    b, n = partner.shape
    row, query = ((partner >= 0) & (torch.arange(n) - partner >= far))[:, 1:].nonzero().T
    should = torch.zeros(b, n, n, dtype=torch.bool)
    should[row, query, partner[row, query + 1]] = True
    return HeadTargets(torch.ones(b, n, n, dtype=torch.bool).tril(), should)


def _seen(mask: Bool[Tensor, "b n"], causal: bool) -> Bool[Tensor, "b n n"]:
    seen = mask[:, None, :] & mask[:, :, None]
    return seen.tril() if causal else seen


def head_shares(maps: Sequence[Float[Tensor, "b h q n"]], positions: HeadTargets) -> Float[Tensor, "layers h"]:
    """The share of queries at which each head, of those where it may look, looks most at a right position.

    ``maps`` has the weights of each layer. Raises ``ValueError`` where no query is asked.
    """
    asked = positions.should.any(-1)
    if not asked.any():
        raise ValueError("No query has a right position to look at: give texts in which one comes.")
    table = []
    for weights in maps:
        most = weights.masked_fill(~positions.may[:, None], -1).argmax(-1)  # (b, h, q)
        right = positions.should[:, None].expand(-1, most.shape[1], -1, -1).gather(3, most[..., None])[..., 0]
        table.append((right & asked[:, None]).sum((0, 2)) / asked.sum())
    return torch.stack(table)


def uniform_share(positions: HeadTargets) -> float:
    """The share of a head that looks at any position where it may with equal odds: chance."""
    asked = positions.should.any(-1)
    return float((positions.should.sum(-1)[asked] / positions.may.sum(-1)[asked]).mean())


def best_head(shares: Float[Tensor, "layers h"]) -> tuple[int, int]:
    """Layer and head with the largest share. Choose on one split, and report the share on another."""
    return divmod(int(shares.argmax()), shares.shape[1])
