"""Regions: what is wrong with them is told, what padding holds is not looked at, boxes are measured."""

import math
import re

import pytest
import torch
from testing_tools import close

from mmlearn.models.fusion.regions import box_sizes, check_regions, masked_only, read_regions

pytestmark = pytest.mark.usefixtures("unchecked")
WHOLE = [0.0, 0.0, 1.0, 1.0]


def random_regions(b=3, p=5, f=7, seed=0):
    """Features, boxes that lie in the picture, and a mask with at least one region a picture."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(b, p, 2, 2, generator=generator).sort(2).values  # (b, p, start and end, x and y)
    boxes = corners.flatten(2)
    mask = torch.rand(b, p, generator=generator) < 0.5
    mask[:, 0] = True
    return torch.randn(b, p, f, generator=generator), boxes, mask


def refused(says, regions, boxes, mask=None):
    with pytest.raises(ValueError, match=says) as error:
        check_regions(regions, boxes, mask)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_right_passes(seed):
    regions, boxes, mask = random_regions(seed=seed)
    assert torch.equal(check_regions(regions, boxes, mask), mask)
    assert torch.equal(check_regions(regions, boxes), torch.ones(3, 5, dtype=torch.bool))


def test_the_edges_of_the_picture_are_inside():
    assert check_regions(torch.zeros(1, 1, 1), torch.tensor([[WHOLE]])).all()


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [5, 5, -3, 2], [math.nan] * 4, [math.inf, 0, -math.inf, 0]])
def test_padding_may_hold_anything(box):
    regions, boxes, mask = random_regions()
    boxes[~mask] = torch.tensor(box, dtype=torch.float)
    regions[~mask] = math.nan
    assert torch.equal(check_regions(regions, boxes, mask), mask)


@pytest.mark.parametrize(
    ("regions", "boxes"),
    [
        ((2, 3, 7), (2, 4, 4)),  # another number of boxes
        ((2, 3, 7), (3, 3, 4)),  # another number of pictures
        ((2, 3, 7), (2, 3, 5)),  # a box of five numbers
        ((2, 3, 7), (2, 12)),
        ((3, 7), (3, 4)),  # without a batch
        ((2, 3, 7, 7), (2, 3, 4)),  # feature maps
        ((2, 3, 7), (1, 3, 4)),  # boxes do not broadcast
    ],
)
def test_counts_that_differ(regions, boxes):
    got = re.escape(f"got {regions} and {boxes}. Pad pictures with fewer regions")
    refused(
        rf"^Regions are \(b, p, features\) and their boxes \(b, p, 4\); {got}", torch.ones(regions), torch.ones(boxes)
    )


@pytest.mark.parametrize("shape", [(3, 4), (2, 5), (3, 5, 1), (5,), (1, 5), (3, 1)])
def test_a_mask_of_another_shape(shape):
    regions, boxes, _ = random_regions()
    says = re.escape(f"(b, p) = (3, 5), True where a region is real; got torch.bool {shape}.")
    refused(f"^region_mask is boolean {says}", regions, boxes, torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize("dtype", [torch.long, torch.float, torch.uint8])
def test_a_mask_of_another_type(dtype):
    regions, boxes, mask = random_regions()
    refused(rf"^region_mask is boolean .* got {dtype} \(3, 5\)", regions, boxes, mask.to(dtype))


def test_a_picture_without_a_region():
    regions, boxes, mask = random_regions()
    mask[1] = False
    refused("^Picture 1 of the batch has no region; give at least one", regions, boxes, mask)
    refused("^Picture 0 of the batch has no region", regions, boxes, mask & False)
    refused("^Picture 0 of the batch has no region", torch.zeros(2, 0, 7), torch.zeros(2, 0, 4))


@pytest.mark.parametrize(
    "box",
    [
        [0.6, 0.1, 0.4, 0.9],  # right of its right edge
        [0.1, 0.9, 0.4, 0.6],  # upside down
        [0.4, 0.1, 0.4, 0.9],  # no width
        [0.1, 0.5, 0.4, 0.5],  # no height
        [-0.1, 0.1, 0.4, 0.9],
        [0.1, -0.01, 0.4, 0.9],
        [0.1, 0.1, 1.01, 0.9],
        [0.1, 0.1, 0.4, 1.01],
        [10.0, 20.0, 30.0, 40.0],  # pixels
        [math.nan, 0.1, 0.4, 0.9],
        [0.1, 0.1, 0.4, math.nan],
        [0.1, 0.1, math.inf, 0.9],
    ],
)
def test_boxes_that_cannot_be(box):
    regions, boxes, mask = random_regions()
    boxes[2, 3], mask[2, 3] = torch.tensor(box), True
    numbers = re.escape(", ".join(f"{x:g}" for x in box))
    refused(
        rf"^Box 3 of picture 2 is \({numbers}\); left < right and top < bottom, all from 0 to 1", regions, boxes, mask
    )
    mask[2, 3] = False
    assert check_regions(regions, boxes, mask) is mask
    refused("^Box 3 of picture 2", regions, boxes)


@pytest.mark.parametrize("seed", range(3))
def test_sizes_by_hand(seed):
    _, boxes, _ = random_regions(seed=seed)
    sizes = box_sizes(boxes)
    assert sizes.shape == (3, 5, 3)
    for row, expected in zip(sizes.flatten(0, 1).tolist(), boxes.flatten(0, 1).tolist()):
        left, top, right, bottom = expected
        assert row == pytest.approx([right - left, bottom - top, (right - left) * (bottom - top)], abs=1e-6)
    close(box_sizes(torch.tensor([[[0.1, 0.2, 0.6, 0.4]]])), torch.tensor([[[0.5, 0.2, 0.1]]]))


@pytest.mark.parametrize(("of_regions", "of_boxes"), [(int, float), (float, int), (int, int), (torch.double, float)])
def test_numbers_of_another_type(of_regions, of_boxes):
    types = {int: torch.int64, float: torch.float32}
    regions, boxes, mask = random_regions()
    regions, boxes = regions.to(types.get(of_regions, of_regions)), boxes.to(types[of_boxes])
    refused(
        rf"^Regions and boxes are floats of one type; got {regions.dtype} and {boxes.dtype}\.", regions, boxes, mask
    )


def test_masked_regions_of_all_pictures_are_as_if_of_one():
    masked = torch.tensor([[True, False, True], [False, False, False], [False, True, False]])
    regions, classes = torch.randn(3, 3, 7), torch.randn(3, 3, 4)
    got = masked_only(masked, regions, classes)
    for one, whole in zip(got, (regions, classes)):
        assert torch.equal(one, torch.stack([whole[0, 0], whole[0, 2], whole[2, 1]])[None])
    assert torch.equal(got[2], torch.ones(1, 3, dtype=torch.bool))
    none = masked_only(masked & False, regions)
    assert (none[0].shape, none[1].shape) == ((1, 0, 7), (1, 0))


@pytest.mark.parametrize("masked", [torch.ones(3, 5, dtype=torch.long), torch.ones(3, 4, dtype=torch.bool)])
def test_what_is_hidden_is_said_for_each_region(masked):
    regions, boxes, mask = random_regions()
    with pytest.raises(ValueError, match=r"masked_regions is boolean \(b, p\) = \(3, 5\)"):
        read_regions(regions, boxes, mask, masked, texts=3, width=7)
