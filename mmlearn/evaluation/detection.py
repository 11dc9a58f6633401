"""How well a detector finds the objects of pictures: average precision, as COCO's at one threshold."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.evaluation.grounding import iou
from mmlearn.evaluation.measures import Rows, row
from mmlearn.objectives.boxes import centers_to_corners


def average_precision(right: Bool[Tensor, "n"], score: Float[Tensor, "n"], objects: int) -> float:
    r"""The area under precision by recall, where each precision is the best at that recall or a higher one.

    .. math:: \mathrm{AP} = \sum_k (r_k - r_{k-1}) \max_{j \ge k} p_j

    ``right`` says which of n guesses found one of the ``objects``. Raises ``ValueError`` where there is no object.
    Source: Everingham et al. 2010 (Pascal VOC), section 4.2, at every recall that occurs.
    """
    if objects < 1:
        raise ValueError("Average precision needs at least one object to find.")
    hits = right[score.argsort(descending=True, stable=True)].float().cumsum(0)
    precision = hits / torch.arange(1, len(hits) + 1)
    best = precision.flip(0).cummax(0).values.flip(0)
    return float((best * torch.diff(hits / objects, prepend=torch.zeros(1))).sum())


def match_detections(
    boxes: Float[Tensor, "q 4"], score: Float[Tensor, "q"], truth: Float[Tensor, "p 4"], threshold: float = 0.5
) -> Bool[Tensor, "q"]:
    """Which guesses find an object: the surest first, each object once, the one that overlaps most.

    Source: Everingham et al. 2010 (Pascal VOC), section 4.2; Lin et al. 2014 (COCO), official evaluation.
    """
    found, taken = torch.zeros(len(boxes), dtype=torch.bool), torch.zeros(len(truth), dtype=torch.bool)
    for i in score.argsort(descending=True, stable=True).tolist():
        overlap = iou(boxes[i].expand(len(truth), 4), truth).masked_fill(taken, -1)
        if len(truth) and overlap.max() >= threshold:
            found[i] = taken[overlap.argmax()] = True
    return found


def mean_average_precision(
    label: Int[Tensor, "n q"],
    score: Float[Tensor, "n q"],
    boxes: Float[Tensor, "n q 4"],
    true_label: Int[Tensor, "n p"],
    truth: Float[Tensor, "n p 4"],
    real: Bool[Tensor, "n p"],
) -> float:
    """The mean of :func:`average_precision` over the classes that occur. ``ValueError`` where none does."""
    values = []
    for number in true_label[real].unique().tolist():
        hits, scores = [], []
        for i in range(len(label)):
            own, there = label[i] == number, (true_label[i] == number) & real[i]
            hits.append(match_detections(boxes[i, own], score[i, own], truth[i, there]))
            scores.append(score[i, own])
        objects = int(((true_label == number) & real).sum())
        values.append(average_precision(torch.cat(hits), torch.cat(scores), objects))
    if not values:
        raise ValueError("Average precision needs at least one object to find.")
    return sum(values) / len(values)


def detection_precision(run: Any, samples: Sequence[Any]) -> Rows:
    """Average precision where boxes share at least half, and what the same guesses get on other pictures.

    Every guess counts with its likeliest class. ``class_logits`` have *nothing* as their last class.
    """
    batch = run.plain(samples, "detection")
    found = run.read(batch, lambda output, rows: torch.cat([output.class_logits, output.boxes], -1))
    boxes = centers_to_corners(found[..., -4:])
    score, label = found[..., :-4].softmax(-1)[..., :-1].max(-1)
    truth = batch["object_classes"], batch["boxes"], batch["object_mask"]
    far = len(samples) // 2
    rows = [
        mean_average_precision(label, score, boxes, *(x.roll(shift, 0) for x in truth)) for shift in (0, max(far, 1))
    ]
    return {"average precision, boxes that share half": row(*rows)}
