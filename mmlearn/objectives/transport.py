r"""Optimal transport: how far must the words of a text travel to become the regions of a picture?

A plan T says how much of word i goes to region j. Each of n words sends 1/n, each of m regions receives 1/m, and the
best plan has the lowest cost :math:`\langle T, C \rangle`. No pair of word and region is labelled for this.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def cosine_cost(x: Float[Tensor, "b t d"], y: Float[Tensor, "b p d"]) -> Float[Tensor, "b t p"]:
    r"""What it costs to bring x to y: 0 in the same direction, 2 in the opposite one.

    .. math:: c(x_i, y_j) = 1 - \frac{x_i^\top y_j}{\lVert x_i \rVert_2 \lVert y_j \rVert_2}

    Source: Chen et al. 2020 (UNITER), section 3.2, word-region alignment.
    """
    return 1 - F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).mT


@torch.no_grad()
def ipot(
    cost: Float[Tensor, "b t p"],
    x_mask: Bool[Tensor, "b t"],
    y_mask: Bool[Tensor, "b p"],
    beta: float = 0.5,
    iterations: int = 50,
    inner: int = 1,
) -> Float[Tensor, "b t p"]:
    r"""The transport plan by proximal points: each step may move only a little from the plan before.

    .. math:: T^{(k+1)} = \arg\min_{T} \langle T, C \rangle + \beta\, \mathrm{KL}(T \,\|\, T^{(k)})

    A step scales rows (δ) and columns (σ) of :math:`Q = e^{-C/\beta} \odot T^{(k)}` in turn, ``inner`` times:

    .. math:: \delta = \frac{1}{n\, Q \sigma}, \quad \sigma = \frac{1}{m\, Q^\top \delta}, \quad
       T^{(k+1)} = \mathrm{diag}(\delta)\, Q\, \mathrm{diag}(\sigma)

    Columns, scaled last, sum to 1/m exactly; rows to 1/n the better the more ``iterations``. Padding gets exactly no
    mass; where a row of the batch has no x or no y, nothing moves. The plan has no gradient.
    Raises ``ValueError`` for ``beta``, ``iterations`` or ``inner`` that are not positive.
    Source: Xie et al. 2018 (IPOT), algorithm 1; Chen et al. 2020 (UNITER), supplementary material.
    """
    if beta <= 0 or iterations < 1 or inner < 1:
        raise ValueError(f"beta, iterations and inner must be positive, got {beta}, {iterations} and {inner}.")
    cost = cost.to(torch.promote_types(cost.dtype, torch.float32))
    rows, columns = _uniform(x_mask, cost.dtype)[:, :, None], _uniform(y_mask, cost.dtype)[:, None]
    kernel = torch.exp(-cost / beta).masked_fill(~(x_mask[:, :, None] & y_mask[:, None]), 0)
    plan, sigma = torch.ones_like(kernel), columns
    tiny = torch.finfo(cost.dtype).tiny  # padding is 0 / tiny = 0, not 0 / 0
    for _ in range(iterations):
        q = kernel * plan
        for _ in range(inner):
            delta = rows / (q * sigma).sum(2, keepdim=True).clamp(min=tiny)
            sigma = columns / (q * delta).sum(1, keepdim=True).clamp(min=tiny)
        plan = delta * q * sigma
    return plan


def word_region_alignment(
    words: Float[Tensor, "b t d"],
    regions: Float[Tensor, "b p d"],
    word_mask: Bool[Tensor, "b t"],
    region_mask: Bool[Tensor, "b p"],
    beta: float = 0.5,
    iterations: int = 50,
) -> Float[Tensor, "b"]:
    r"""WRA: the cost of turning the words of a text into the regions of its picture, for each pair of a batch.

    .. math:: D(w, v) = \min_{T \in \Pi} \sum_{ij} T_{ij}\, c(w_i, v_j)

    The gradient goes through the cost alone: the plan of :func:`ipot` counts as a constant.
    Source: Chen et al. 2020 (UNITER), section 3.2, word-region alignment.
    """
    cost = cosine_cost(words, regions)
    return (ipot(cost, word_mask, region_mask, beta, iterations) * cost).sum((1, 2))


def _uniform(mask: Bool[Tensor, "b n"], dtype: torch.dtype) -> Float[Tensor, "b n"]:
    """The same mass on all real positions, 1 in all."""
    return mask.to(dtype) / mask.sum(1, keepdim=True).clamp(min=1)
