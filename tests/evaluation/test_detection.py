"""Average precision by hand, and of a detector whose guesses are known."""

from types import SimpleNamespace

import pytest
import torch
from testing_tools import refused

from mmlearn.evaluation.detection import average_precision, detection_precision, match_detections
from mmlearn.objectives.boxes import corners_to_centers


def test_average_precision_by_hand():
    right, score = torch.tensor([True, False, True, False]), torch.tensor([0.9, 0.8, 0.7, 0.1])
    # recall 1/3 at precision 1, 2/3 at 2/3, and one object is never found
    assert average_precision(right, score, 3) == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)
    assert average_precision(right & False, score, 2) == 0
    assert average_precision(torch.tensor([False, True]), torch.tensor([0.1, 0.9]), 1) == 1  # the surest counts first
    refused("at least one object", average_precision, right, score, 0)


def test_each_object_is_found_once_by_the_surest():
    truth = torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9]])
    boxes = truth[[0, 0, 1]] + torch.tensor([[0.02] * 4, [0.0] * 4, [0.3] * 4])
    assert match_detections(boxes, torch.tensor([0.9, 0.8, 0.7]), truth).tolist() == [True, False, False]
    assert match_detections(boxes, torch.tensor([0.8, 0.9, 0.7]), truth).tolist() == [False, True, False]
    assert not match_detections(boxes, torch.ones(3), truth[:0]).any()


def test_a_perfect_detector_has_one_and_is_worse_on_other_images():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(6, 3, 2, generator=generator) * 0.6
    truth = torch.cat([corner, corner + 0.2], -1)
    classes = torch.randint(4, (6, 3), generator=generator)
    real = torch.arange(3) < torch.tensor([3, 2, 3, 1, 3, 2])[:, None]
    batch = {"object_classes": classes, "boxes": truth, "object_mask": real}
    logits = torch.nn.functional.one_hot(torch.where(real, classes, 4), 5) * 9.0
    output = SimpleNamespace(class_logits=logits, boxes=corners_to_centers(truth))
    run = SimpleNamespace(plain=lambda samples, name: batch, read=lambda rows, what: what(output, rows))
    (row,) = detection_precision(run, range(6)).values()
    assert row["obtained"] == pytest.approx(1)
    assert row["chance"] < 0.3
