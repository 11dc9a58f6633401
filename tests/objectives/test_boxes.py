"""Boxes: GIoU against torchvision's, positions that are at most half a bin away, and what is wrong with a box."""

import pytest
import torch
from testing_tools import close, refused
from torchvision.ops import generalized_box_iou

from mmlearn.objectives.boxes import (
    centers_to_corners,
    check_boxes,
    corners_to_centers,
    dequantise,
    generalised_iou,
    quantise,
)


def random_boxes(n, seed):
    corner = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed)) * 0.7
    size = 0.02 + 0.28 * torch.rand(n, 2, generator=torch.Generator().manual_seed(seed + 1))
    return torch.cat([corner, corner + size], 1)


def test_generalised_iou_is_torchvisions_and_has_a_gradient_where_boxes_do_not_touch():
    one, other = random_boxes(60, 0), random_boxes(60, 2)
    close(generalised_iou(one, other), generalized_box_iou(one, other).diagonal(), 1e-5)
    pairs = torch.broadcast_tensors(one[:, None], other[None])
    close(generalised_iou(*pairs), generalized_box_iou(one, other), 1e-5)
    close(generalised_iou(one, one), torch.ones(60))
    far = torch.tensor([[0.1, 0.1, 0.2, 0.2]], requires_grad=True)
    generalised_iou(far, torch.tensor([[0.8, 0.8, 0.9, 0.9]])).sum().backward()
    assert far.grad.abs().min() > 0
    close(centers_to_corners(corners_to_centers(one)), one, 1e-6)


@pytest.mark.parametrize("bins", [2, 7, 64, 1000])
def test_a_position_is_at_most_half_a_bin_away(bins):
    shares = torch.rand(5000, generator=torch.Generator().manual_seed(bins))
    found = dequantise(quantise(shares, bins), bins)
    assert (found - shares).abs().max() <= 0.5 / (bins - 1) + 1e-6
    assert (found - shares).abs().max() > 0.45 / (bins - 1)  # no finer than it should be
    positions = torch.arange(bins)
    assert torch.equal(quantise(dequantise(positions, bins), bins), positions)
    ordered = shares.sort().values
    assert (quantise(ordered, bins).diff() >= 0).all()
    assert quantise(torch.tensor([0.0, 1.0]), bins).tolist() == [0, bins - 1]


def test_what_is_wrong_is_told():
    refused("a share of the picture, from 0 to 1; got 1.2", quantise, torch.tensor([0.5, 1.2]), 10)
    refused("from 0 to 1; got nan", quantise, torch.tensor([torch.nan]), 10)
    refused("There is no bin 10: there are 10", dequantise, torch.tensor([3, 10]), 10)
    refused("at least 2 bins, got 1", quantise, torch.rand(2), 1)
    good = torch.tensor([[[0.1, 0.2, 0.5, 0.6]]])
    check_boxes(good)
    for wrong in (
        [0.5, 0.2, 0.1, 0.6],
        [0.1, 0.2, 0.1, 0.6],
        [0.1, 0.2, 1.5, 0.6],
        [-0.1, 0.2, 0.5, 0.6],
        [torch.nan] * 4,
    ):
        boxes = torch.cat([good, torch.tensor([[wrong]])], 1)
        refused("Box 1 of picture 0 is .*; expected left < right", check_boxes, boxes)
        check_boxes(boxes, torch.tensor([[True, False]]))
