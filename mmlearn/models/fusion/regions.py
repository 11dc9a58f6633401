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
    left, top, right, bottom = boxes.unbind(-1)
    whole = (left >= 0) & (left < right) & (right <= 1) & (top >= 0) & (top < bottom) & (bottom <= 1)
    empty, wrong = ~region_mask.any(1), region_mask & ~whole
    if not (empty.any() | wrong.any()):  # asked once, for on a GPU each question waits for all that went before
        return region_mask
    if empty.any():
        raise ValueError(
            f"Picture {int(empty.nonzero()[0])} of the batch has no region; give at least one, such as all of it: "
            "0 0 1 1."
        )
    picture, region = wrong.nonzero()[0].tolist()
    numbers = ", ".join(f"{x:g}" for x in boxes[picture, region].tolist())
    raise ValueError(
        f"Box {region} of picture {picture} is ({numbers}); left < right and top < bottom, all from 0 to 1 as shares "
        "of the picture, are expected."
    )


def read_regions(
    regions: Float[Tensor, "..."],
    boxes: Float[Tensor, "..."],
    region_mask: Bool[Tensor, "..."] | None,
    masked_regions: Bool[Tensor, "..."] | None,
    *,
    texts: int,
    width: int,
) -> tuple[Float[Tensor, "b p f"], Bool[Tensor, "b p"]]:
    """What an encoder may see of regions that are read beside so many ``texts``, 0 where masked; and which are real.

    Raises ``ValueError`` as :func:`check_regions` does, and for other than one picture a text or ``width`` features, or
    another ``masked_regions`` than boolean (b, p).
    """
    region_mask = check_regions(regions, boxes, region_mask)
    if (len(regions), regions.shape[-1]) != (texts, width):
        raise ValueError(
            f"To {texts} texts belong regions ({texts}, p, region_width = {width}); got {tuple(regions.shape)}."
        )
    if masked_regions is not None:
        if masked_regions.dtype != torch.bool or masked_regions.shape != region_mask.shape:
            raise ValueError(
                f"masked_regions is boolean (b, p) = {tuple(region_mask.shape)}, True where a region is hidden; got "
                f"{masked_regions.dtype} {tuple(masked_regions.shape)}."
            )
        regions = regions.masked_fill(masked_regions[..., None], 0)
    return regions, region_mask


def masked_only(masked: Bool[Tensor, "b p"], *of_regions: Float[Tensor, "b p _"]) -> tuple[Tensor, ...]:
    """Of each (b, p, f) only the m masked regions, as if of one picture, (1, m, f); and last a mask of ones, (1, m).

    So a head reads nothing that it is not asked about.
    """
    return *(x[masked][None] for x in of_regions), masked[masked][None]


def box_sizes(boxes: Float[Tensor, "b p 4"]) -> Float[Tensor, "b p 3"]:
    """Width, height and area of each box, as shares of the picture's."""
    left, top, right, bottom = boxes.unbind(-1)
    width, height = right - left, bottom - top
    return torch.stack([width, height, width * height], dim=-1)
