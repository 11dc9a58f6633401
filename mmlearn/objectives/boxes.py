r"""Boxes: what they share, what is wrong with one, and how a coordinate becomes a token.

A box is left, top, right and bottom, as shares of the picture's width and height; or, for a detector, its middle, its
width and its height (:func:`corners_to_centers`, :func:`centers_to_corners`).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.tensor_checks import values_are_readable

RULE = "left < right and top < bottom, all from 0 to 1 as shares of the picture"


def check_boxes(boxes: Float[Tensor, "b p 4"], real: Bool[Tensor, "b p"] | None = None) -> None:
    """``ValueError`` where a real box is inverted, empty or outside the picture. Only boxes on a CPU are looked at."""
    if not values_are_readable(boxes):
        return
    left, top, right, bottom = boxes.unbind(-1)
    wrong = ~((left >= 0) & (left < right) & (right <= 1) & (top >= 0) & (top < bottom) & (bottom <= 1))
    wrong = wrong if real is None else wrong & real
    if wrong.any():
        image, region = wrong.nonzero()[0].tolist()
        numbers = ", ".join(f"{x:g}" for x in boxes[image, region].tolist())
        raise ValueError(f"Box {region} of picture {image} is ({numbers}); expected {RULE}.")


def corners_to_centers(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Left, top, right and bottom as the middle's x and y, width and height."""
    start, end = boxes.split(2, -1)
    return torch.cat([(start + end) / 2, end - start], -1)


def centers_to_corners(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """The inverse of :func:`corners_to_centers`."""
    middle, size = boxes.split(2, -1)
    return torch.cat([middle - size / 2, middle + size / 2], -1)


def generalised_iou(one: Float[Tensor, "*n 4"], other: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    r"""Intersection over union, less the share of the smallest box around both, C, that neither covers.

    .. math:: \frac{|A \cap B|}{|A \cup B|} - \frac{|C| - |A \cup B|}{|C|}

    From −1 for boxes that are small and far apart to 1 for equal ones; unlike the first term it has a gradient where
    boxes do not touch. Boxes are left, top, right and bottom, and are not empty.
    Source: Rezatofighi et al. 2019, "Generalized Intersection over Union", algorithm 1.
    """
    area_one, area_other = (_area(boxes[..., 2:] - boxes[..., :2]) for boxes in (one, other))
    shared = torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])
    shared = _area(shared.clamp(min=0))
    union = area_one + area_other - shared
    around = _area(torch.maximum(one[..., 2:], other[..., 2:]) - torch.minimum(one[..., :2], other[..., :2]))
    return shared / union - (around - union) / around


def _area(size: Tensor) -> Tensor:
    return size[..., 0] * size[..., 1]


def quantise(shares: Float[Tensor, "*n"], bins: int) -> Int[Tensor, "*n"]:
    r"""Coordinates from 0 to 1 as the nearest of so many bins, :math:`k = \mathrm{round}(x\, (B - 1))`.

    Raises ``ValueError`` for fewer than two bins and, on a CPU, for what is outside 0 to 1 or no number.
    Source: Wang et al. 2022 (OFA), official code, ``RefcocoDataset``; Chen et al. 2022 (Pix2Seq), section 2.1.
    """
    _check_bins(bins)
    if values_are_readable(shares) and (wrong := ~((shares >= 0) & (shares <= 1))).any():
        raise ValueError(f"A coordinate is a share of the picture, from 0 to 1; got {shares[wrong][0].item():g}.")
    return (shares * (bins - 1)).round().long()


def dequantise(positions: Int[Tensor, "*n"], bins: int) -> Float[Tensor, "*n"]:
    r"""The coordinate that a bin stands for, :math:`k / (B - 1)`: at most half a bin, 1 / 2(B − 1), from the true one.

    Raises ``ValueError`` for fewer than two bins and, on a CPU, for a bin that there is not.
    """
    _check_bins(bins)
    if values_are_readable(positions) and (wrong := (positions < 0) | (positions >= bins)).any():
        raise ValueError(f"There is no bin {int(positions[wrong][0])}: there are {bins}, from 0.")
    return positions.float() / (bins - 1)


def _check_bins(bins: int) -> None:
    if bins < 2:
        raise ValueError(f"A picture is cut into at least 2 bins, got {bins}.")
