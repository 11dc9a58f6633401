"""Regions of a picture, as a detector returns them: the checks and sizes that every system of regions needs.

A region is a feature vector and a box: left, top, right and bottom, as shares of the picture's width and height.
Source: Anderson et al. 2018, "Bottom-Up and Top-Down Attention", section 3.1, for regions as a picture's tokens.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmlearn.layers.language import TINY_BERT
from mmlearn.objectives.boxes import check_boxes as check_each
from mmlearn.tensor_checks import values_are_readable

# The entries of a batch that an encoder of regions and words reads, in the order of its forward.
REGION_INPUTS = ("regions", "boxes", "tokens", "mask", "region_mask", "masked_regions", "token_type")
TINY = TINY_BERT | dict(region_width=216, region_classes=144)  # the sizes of the detector of scenes


def read_regions(
    regions: Float[Tensor, "b p f"],
    boxes: Float[Tensor, "b p 4"],
    region_mask: Bool[Tensor, "b p"] | None,
    masked_regions: Bool[Tensor, "b p"] | None,
    *,
    texts: int,
    width: int,
) -> tuple[Float[Tensor, "b p f"], Float[Tensor, "b p 4"], Bool[Tensor, "b p"], Bool[Tensor, "b p"]]:
    """The regions that an encoder may see: features and boxes, which regions are real, and which are masked.

    ``region_mask`` is True where a region is real: without it, everywhere. ``masked_regions`` are to be predicted:
    without it, none. Features are 0 where a region is masked, and features and boxes are 0 where it is padding.
    Raises ``ValueError`` unless there is one picture for each of the ``texts``, with ``width`` features for each
    region, and all shapes agree.
    """
    if region_mask is None:
        region_mask = torch.ones(regions.shape[:2], dtype=torch.bool, device=regions.device)
    if masked_regions is None:
        masked_regions = torch.zeros_like(region_mask)
    shape = (texts, *regions.shape[1:2])
    floats = regions.dtype if regions.is_floating_point() else torch.float32
    for name, value, dtype, expected in (
        ("regions", regions, floats, (*shape, width)),
        ("boxes", boxes, floats, (*shape, 4)),
        ("region_mask", region_mask, torch.bool, shape),
        ("masked_regions", masked_regions, torch.bool, shape),
    ):
        if value.dtype != dtype or value.shape != expected:
            raise ValueError(
                f"{name} must be {dtype} {expected}, because there are {texts} texts and region_width is {width}; "
                f"got {value.dtype} {tuple(value.shape)}."
            )
    padding = ~region_mask[..., None]  # (b, p, 1)
    # Zeros hide what a masked region holds, and keep padding of any content out of sums over regions.
    regions = regions.masked_fill(padding | masked_regions[..., None], 0)
    return regions, boxes.masked_fill(padding, 0), region_mask, masked_regions


def check_boxes(boxes: Float[Tensor, "b p 4"], region_mask: Bool[Tensor, "b p"] | None = None) -> None:
    """``ValueError`` where a picture has no region, or a real box is inverted, empty or outside the picture.

    Only boxes on a CPU are checked.
    """
    if not values_are_readable(boxes):
        return
    if region_mask is None:
        region_mask = torch.ones_like(boxes[..., 0], dtype=torch.bool)
    empty = ~region_mask.any(1)
    if empty.any():
        raise ValueError(
            f"Picture {int(empty.nonzero()[0])} of the batch has no region; give at least one, such as all: 0 0 1 1."
        )
    check_each(boxes, region_mask)


def box_sizes(boxes: Float[Tensor, "b p 4"]) -> Float[Tensor, "b p 3"]:
    """Width, height and area of each box, as shares of the picture's."""
    left, top, right, bottom = boxes.unbind(-1)  # each (b, p)
    width, height = right - left, bottom - top
    return torch.stack([width, height, width * height], dim=-1)
