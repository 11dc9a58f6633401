"""Positions that need no learning: sines and cosines, added to tokens or used to turn queries and keys."""

import math

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor


def sinusoidal_positions(length: int, width: int, device: torch.device | None = None) -> Float[Tensor, "length width"]:
    r"""Positions that need no learning: a clock hand for every pair of features.

    .. math:: PE_{(pos, 2i)} = \sin(pos / 10000^{2i/d}), \quad PE_{(pos, 2i+1)} = \cos(pos / 10000^{2i/d})

    Raises ``ValueError`` for an odd width. Source: Vaswani et al. 2017, section 3.5.
    """
    if width % 2:
        raise ValueError(f"Sines and cosines come in pairs: width must be even, got {width}.")
    rate = 10_000 ** (torch.arange(0, width, 2, device=device) / width)
    angle = torch.arange(length, device=device)[:, None] / rate  # (length, half)
    return rearrange([angle.sin(), angle.cos()], "pair length half -> length (half pair)")


def sinusoidal_grid(rows: int, columns: int, width: int) -> Float[Tensor, "p width"]:
    r"""Positions of a grid, row by row: one half of the features encodes the column, the other half the row.

    .. math:: [\sin \omega x,\; \cos \omega x,\; \sin \omega y,\; \cos \omega y], \quad
       \omega_i = 10000^{-4i/d}, \; i = 0, \dots, d/4 - 1

    Raises ``ValueError`` where ``width`` is no multiple of four. Source: He et al. 2022 (MAE), section A.1; official
    code, ``util/pos_embed.py``.
    """
    if width % 4:
        raise ValueError(f"A grid's sines and cosines of two axes need a width that is a multiple of 4, got {width}.")
    rate = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    down, across = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (rows, columns)), indexing="ij")
    angles = [position.flatten()[:, None] * rate for position in (across, down)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], 1).float()


def harmonic_grid(side: int, width: int) -> Float[Tensor, "p width"]:
    r"""Positions of a square grid, row by row: one half of the features encodes the row, the other half the column.

    .. math:: [\sin \omega_k y,\; \cos \omega_k y,\; \sin \omega_k x,\; \cos \omega_k x], \quad
       \omega_k = \frac{\pi k}{2}, \; k = 1, \dots, d/4

    x and y are the centre of a position, as shares of the image. The rates of :func:`sinusoidal_grid`, made for long
    grids, would leave most features nearly equal on a small one. Raises ``ValueError`` where ``width`` is no multiple
    of four. Source: ours.
    """
    if width % 4:
        raise ValueError(f"Sines and cosines of two axes need a width that is a multiple of 4, got {width}.")
    angle = torch.pi / 2 * (torch.arange(side)[:, None] + 0.5) / side * torch.arange(1, width // 4 + 1)  # (side, d/4)
    axis = torch.cat([angle.sin(), angle.cos()], 1)  # (side, d/2)
    return torch.cat([axis.repeat_interleave(side, 0), axis.repeat(side, 1)], 1)


def masked_sinusoidal_grid(
    mask: Bool[Tensor, "b row column"], width: int, temperature: float = 10_000.0
) -> Float[Tensor, "b p width"]:
    r"""Positions of a padded grid: half of the features encodes the row, half the column, as shares of 2π.

    .. math:: [\sin(y / T^{4i/d}),\; \cos(y / T^{4i/d})]_{i < d/4}, \quad y = 2 \pi \frac{\text{row}}{\text{rows}}

    Rows and columns count from 1. Only real positions count, so that of a padded image the last real row has 2π as
    well. Raises ``ValueError`` where the width is no multiple of four. Source: Carion et al. 2020 (DETR), section A.4,
    and official code.
    """
    if width % 4:
        raise ValueError(f"Sines and cosines of two axes need a width that is a multiple of 4, got {width}.")
    rate = temperature ** (4 * torch.arange(width // 4, device=mask.device) / width)  # (d/4,)
    features = []
    for axis in (1, 2):
        position = mask.float().cumsum(axis)  # (b, row, column)
        last = position.narrow(axis, position.shape[axis] - 1, 1)
        angle = (position / (last + 1e-6) * 2 * math.pi)[..., None] / rate  # (b, row, column, d/4)
        features.append(torch.stack([angle.sin(), angle.cos()], -1).flatten(3))  # (b, row, column, d/2)
    return rearrange(torch.cat(features, -1), "b row column d -> b (row column) d")


def rotary_angles(length: int, head_width: int, base: float = 10_000.0) -> Float[Tensor, "length half"]:
    r"""By what angle each pair of features turns at each position, for :func:`rotate`.

    .. math:: \theta_{m, i} = m \, \mathrm{base}^{-2i/k}, \quad i = 0, \dots, k/2 - 1

    Raises ``ValueError`` for an odd head width. Source: Su et al. 2021 (RoFormer), equation 15.
    """
    if head_width % 2:
        raise ValueError(f"Rotary positions turn pairs of features: head_width must be even, got {head_width}.")
    return torch.arange(length)[:, None] * base ** -(torch.arange(0, head_width, 2) / head_width)


def rotate(x: Float[Tensor, "b h n k"], angle: Float[Tensor, "*#b n half"]) -> Float[Tensor, "b h n k"]:
    r"""Turn each pair of features by the angle of its position, so that scores depend on relative positions alone.

    .. math:: (x_i,\; x_{i + k/2}) \leftarrow (x_i \cos\theta_i - x_{i + k/2} \sin\theta_i,\;
       x_{i + k/2} \cos\theta_i + x_i \sin\theta_i)

    ``angle`` (:func:`rotary_angles`) is (n, k/2), or (b, n, k/2) where rows have positions of their own. The paper
    pairs neighbouring features; LLaMA's released weights pair the two halves, as here: the same in another order.
    Source: Su et al. 2021 (RoFormer), equation 34.
    """
    cos, sin = angle.cos().unsqueeze(-3).to(x), angle.sin().unsqueeze(-3).to(x)  # the same for all heads
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def logarithmic_bucket(distance: Int[Tensor, "*n"], buckets: int, max_distance: int) -> Int[Tensor, "*n"]:
    r"""The bucket of a distance: half of them are for one distance each, the others grow as its logarithm.

    .. math:: \mathrm{bucket}(n) = \frac{B}{2} + \left\lfloor \frac{B}{2} \cdot
       \frac{\ln (2n / B)}{\ln (2m / B)} \right\rfloor \quad \text{for } n \ge B/2

    From ``max_distance`` m on all share the last one. Source: Raffel et al. 2020, section 2.1.
    """
    exact = buckets // 2
    growth = torch.log(distance.clamp(min=1) / exact) / math.log(max_distance / exact)
    far = (exact + (growth * (buckets - exact)).long()).clamp(max=buckets - 1)
    return torch.where(distance < exact, distance, far)
