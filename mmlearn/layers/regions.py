"""Regions of a picture, as a detector hands them over: what every system that reads them checks and measures.

A region is a feature vector and a box. Boxes are shares of the picture's width and height: left, top, right, bottom.
Source: Anderson et al. 2018, "Bottom-Up and Top-Down Attention", section 3.1, for regions as a picture's tokens.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def check_regions(
    regions: Float[Tensor, "..."], boxes: Float[Tensor, "..."], region_mask: Bool[Tensor, "..."] | None = None
) -> Bool[Tensor, "b p"]:
    """The mask of real regions, (b, p): the one given, or all True. What padding holds is not looked at.

    Raises ``ValueError`` where features (b, p, f), boxes (b, p, 4) and mask (b, p) do not agree, a picture has no
    region, or a real box is inverted, empty or outside the picture.
    """
    if regions.ndim != 3 or boxes.shape != (*regions.shape[:2], 4):
        raise ValueError(
            f"Regions are (b, p, features) and their boxes (b, p, 4); got {tuple(regions.shape)} and "
            f"{tuple(boxes.shape)}. Pad pictures with fewer regions and say so in region_mask."
        )
    if not regions.is_floating_point() or boxes.dtype != regions.dtype:
        raise ValueError(
            f"Regions and boxes are floats of one type; got {regions.dtype} and {boxes.dtype}. Use .float() on both."
        )
    if region_mask is None:
        region_mask = torch.ones(regions.shape[:2], dtype=torch.bool, device=regions.device)
    if region_mask.dtype != torch.bool or region_mask.shape != regions.shape[:2]:
        raise ValueError(
            f"region_mask is boolean (b, p) = {tuple(regions.shape[:2])}, True where a region is real; got "
            f"{region_mask.dtype} {tuple(region_mask.shape)}."
        )
    if not region_mask.any(1).all():
        picture = int((~region_mask.any(1)).nonzero()[0])
        raise ValueError(
            f"Picture {picture} of the batch has no region; give at least one, such as all of it: 0 0 1 1."
        )
    left, top, right, bottom = boxes.unbind(-1)
    whole = (left >= 0) & (left < right) & (right <= 1) & (top >= 0) & (top < bottom) & (bottom <= 1)
    if (wrong := region_mask & ~whole).any():
        picture, region = wrong.nonzero()[0].tolist()
        numbers = ", ".join(f"{x:g}" for x in boxes[picture, region].tolist())
        raise ValueError(
            f"Box {region} of picture {picture} is ({numbers}); left < right and top < bottom, all from 0 to 1 as "
            "shares of the picture, are expected."
        )
    return region_mask


def box_sizes(boxes: Float[Tensor, "b p 4"]) -> Float[Tensor, "b p 3"]:
    """Width, height and area of each box, as shares of the picture's."""
    left, top, right, bottom = boxes.unbind(-1)
    width, height = right - left, bottom - top
    return torch.stack([width, height, width * height], dim=-1)
