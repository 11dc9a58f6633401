"""Regions: what is wrong with them is told, what padding holds is not looked at, boxes are measured."""

import math
import re

import pytest
import torch
from testing_tools import close, refused

from mmlearn.models.fusion.pretraining_losses import regions_to_predict
from mmlearn.models.fusion.regions import box_sizes, check_boxes, read_regions

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


def read(regions, boxes, mask=None, masked=None, texts=3, width=7):
    return read_regions(regions, boxes, mask, masked, texts=texts, width=width)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_right_passes(seed):
    regions, boxes, mask = random_regions(seed=seed)
    masked = (torch.arange(5) % 2 == 1) & mask
    shown, positions, real, hidden = read(regions, boxes, mask, masked)
    for i in range(3):
        for j in range(5):
            sees = mask[i, j] and not masked[i, j]
            assert torch.equal(shown[i, j], regions[i, j] if sees else torch.zeros(7))
            assert torch.equal(positions[i, j], boxes[i, j] if mask[i, j] else torch.zeros(4))
    assert real is mask
    assert hidden is masked
    check_boxes(boxes, mask)
    check_boxes(boxes)


def test_without_masks_all_is_real_and_shown():
    regions, boxes, _ = random_regions()
    shown, positions, real, hidden = read(regions, boxes)
    assert torch.equal(shown, regions)
    assert torch.equal(positions, boxes)
    assert real.all()
    assert not hidden.any()


def test_the_edges_of_the_image_are_inside():
    check_boxes(torch.tensor([[WHOLE]]))


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [5, 5, -3, 2], [math.nan] * 4, [math.inf, 0, -math.inf, 0]])
def test_padding_may_hold_anything(box):
    regions, boxes, mask = random_regions()
    boxes[~mask] = torch.tensor(box, dtype=torch.float)
    regions[~mask] = math.nan
    check_boxes(boxes, mask)
    shown, positions, *_ = read(regions, boxes, mask)
    assert shown.isfinite().all()
    assert positions.isfinite().all()


@pytest.mark.parametrize(
    ("regions", "boxes", "wrong"),
    [
        ((3, 5, 7), (3, 4, 4), "boxes"),  # another number of boxes
        ((3, 5, 7), (2, 5, 4), "boxes"),  # another number of pictures
        ((3, 5, 7), (3, 5, 5), "boxes"),  # a box of five numbers
        ((3, 5, 7), (3, 20), "boxes"),
        ((3, 5, 7), (1, 5, 4), "boxes"),  # boxes do not broadcast
        ((5, 7), (5, 4), "regions"),  # without a batch
        ((3, 5, 7, 7), (3, 5, 4), "regions"),  # feature maps
        ((3, 5, 6), (3, 5, 4), "regions"),  # another width
        ((2, 5, 7), (2, 5, 4), "regions"),  # fewer pictures than texts
    ],
)
def test_shapes_that_do_not_agree(regions, boxes, wrong):
    got = re.escape(f"got torch.float32 {regions if wrong == 'regions' else boxes}.")
    says = rf"^{wrong} must be torch.float32 \(3, .*there are 3 texts and region_width is 7; {got}$"
    refused(says, read, torch.ones(regions), torch.ones(boxes))


@pytest.mark.parametrize("shape", [(3, 4), (2, 5), (3, 5, 1), (5,), (1, 5), (3, 1)])
def test_masks_of_another_shape(shape):
    regions, boxes, mask = random_regions()
    wrong, got = torch.ones(shape, dtype=torch.bool), re.escape(f"got torch.bool {shape}.")
    refused(rf"^region_mask must be torch.bool \(3, 5\), .*{got}", read, regions, boxes, wrong)
    refused(rf"^masked_regions must be torch.bool \(3, 5\), .*{got}", read, regions, boxes, mask, wrong)


@pytest.mark.parametrize("dtype", [torch.long, torch.float, torch.uint8])
def test_masks_of_another_type(dtype):
    regions, boxes, mask = random_regions()
    refused(rf"^region_mask must be torch.bool .* got {dtype} \(3, 5\)", read, regions, boxes, mask.to(dtype))
    refused(rf"^masked_regions must be .* got {dtype} \(3, 5\)", read, regions, boxes, mask, mask.to(dtype))


def test_a_image_without_a_region():
    _, boxes, mask = random_regions()
    mask[1] = False
    refused("^Picture 1 of the batch has no region; give at least one", check_boxes, boxes, mask)
    refused("^Picture 0 of the batch has no region", check_boxes, boxes, mask & False)
    refused("^Picture 0 of the batch has no region", check_boxes, torch.zeros(2, 0, 4))


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
    _, boxes, mask = random_regions()
    boxes[2, 3], mask[2, 3] = torch.tensor(box), True
    numbers = re.escape(", ".join(f"{x:g}" for x in box))
    says = rf"^Box 3 of picture 2 is \({numbers}\); expected left < right and top < bottom, all from 0 to 1"
    refused(says, check_boxes, boxes, mask)
    mask[2, 3] = False
    check_boxes(boxes, mask)
    refused("^Box 3 of picture 2", check_boxes, boxes)


@pytest.mark.parametrize("seed", range(3))
def test_sizes_by_hand(seed):
    _, boxes, _ = random_regions(seed=seed)
    sizes = box_sizes(boxes)
    assert sizes.shape == (3, 5, 3)
    for row, expected in zip(sizes.flatten(0, 1).tolist(), boxes.flatten(0, 1).tolist()):
        left, top, right, bottom = expected
        assert row == pytest.approx([right - left, bottom - top, (right - left) * (bottom - top)], abs=1e-6)
    close(box_sizes(torch.tensor([[[0.1, 0.2, 0.6, 0.4]]])), torch.tensor([[[0.5, 0.2, 0.1]]]))


@pytest.mark.parametrize(
    ("of_regions", "of_boxes", "wrong"),
    [(int, float, "regions"), (float, int, "boxes"), (int, int, "regions"), (torch.double, float, "boxes")],
)
def test_numbers_of_another_type(of_regions, of_boxes, wrong):
    types = {int: torch.int64, float: torch.float32}
    regions, boxes, mask = random_regions()
    regions, boxes = regions.to(types.get(of_regions, of_regions)), boxes.to(types[of_boxes])
    got = {"regions": regions, "boxes": boxes}[wrong].dtype
    refused(rf"^{wrong} must be torch.float.*; got {got} \(3, 5, ", read, regions, boxes, mask)


def test_regions_that_are_guessed_are_masked_real_and_of_pairs_that_match():
    tokens, masked = torch.zeros(3, 4).long(), torch.tensor([[True, False, True]] * 3)
    batch = {"tokens": tokens, "masked_regions": masked}
    assert torch.equal(regions_to_predict(batch), masked)
    batch["region_mask"] = torch.tensor([[True, True, True], [True, True, False], [True, True, True]])
    real = masked & batch["region_mask"]
    assert torch.equal(regions_to_predict(batch), real)
    batch["match_label"] = torch.tensor([1, 1, 0])
    expected = torch.tensor([[True, False, True], [True, False, False], [False] * 3])
    assert torch.equal(regions_to_predict(batch), expected)
    assert torch.equal(regions_to_predict(batch, matched_only=False), real)
