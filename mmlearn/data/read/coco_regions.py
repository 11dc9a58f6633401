"""Regions of the pictures of COCO, as a detector would hand them over that makes no mistake."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmlearn.data.made.regions import crop

SURE = 0.9  # the probability of the true class


class BoxDetector:
    r"""The regions of each picture: its annotated boxes, the largest first, so that ``boxes_of`` counts regions.

    What it returns is what :class:`~mmlearn.data.made.regions.SceneDetector` does, for any number of ``classes``:
    ``regions`` (b, p, 3 · width² + classes), whose first part are the pixels in each box, resized by RoIAlign to
    ``width`` × ``width``, moved by -0.4, about their mean, and divided by 4, and behind them the classes'
    probabilities; ``boxes`` (b, p, 4) as shares of the picture; ``region_mask`` (b, p); and ``region_classes``
    (b, p, classes), 0.9 for the annotated class and the rest for all others alike. At most ``most`` regions are taken.
    A picture without boxes is one region as a whole, of no class more than of another.

    Raises ``ValueError`` for samples without boxes, for none at all, or for fewer than two classes.
    Source: Anderson et al. 2018, "Bottom-Up and Top-Down Attention", section 3.1, for at most 36 regions; He et al.
    2017 (Mask R-CNN), section 3, for RoIAlign.
    """

    def __init__(self, classes: Sequence[str], width: int = 8, most: int = 36):
        if len(classes) < 2 or width < 1 or most < 1:
            raise ValueError(
                f"A detector has at least 2 classes, and 1 pixel and 1 region; got {len(classes)}, {width} and {most}."
            )
        self.classes, self.width, self.most = tuple(classes), width, most

    def __repr__(self) -> str:
        return f"BoxDetector({len(self.classes)} classes, width={self.width}, most={self.most})"

    @property
    def region_width(self) -> int:
        """The width of a region's features."""
        return 3 * self.width**2 + len(self.classes)

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        if not samples:
            raise ValueError("A batch holds at least one picture, got none.")
        if stranger := next((sample for sample in samples if not hasattr(sample, "names")), None):
            raise ValueError(
                f"Regions are annotated boxes, and {type(stranger).__name__} has none; give COCO with its instances."
            )
        image = torch.stack([sample.image for sample in samples])
        boxes, classes = zip(*map(self._of, samples))
        mask = pad_sequence([torch.ones(len(each), dtype=torch.bool) for each in boxes], batch_first=True)
        boxes, classes = (pad_sequence(each, batch_first=True) for each in (boxes, classes))
        largest = image.shape[-1] / 4  # of larger boxes some pixels are passed over
        pixels = (crop(image, boxes, self.width, largest).flatten(2) - 0.4) / 4
        return {
            "regions": torch.cat([pixels, classes], dim=-1) * mask[..., None],
            "boxes": boxes,
            "region_mask": mask,
            "region_classes": classes,
        }

    def tags(self, samples: Sequence[Any]) -> list[list[str]]:
        """The name of each region's class; none where a picture has no box."""
        return [list(sample.names[: self.most]) for sample in samples]

    def _of(self, sample: Any) -> tuple[Tensor, Tensor]:
        """The boxes (p, 4) as shares of the picture, and the probabilities of their classes (p, classes)."""
        count = len(self.classes)
        if not sample.names:
            return torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.full((1, count), 1 / count)
        number = torch.tensor([self.classes.index(name) for name in sample.names[: self.most]])
        rest = (1 - SURE) / (count - 1)
        return sample.boxes[: self.most] / sample.image.shape[-1], F.one_hot(number, count) * (SURE - rest) + rest
