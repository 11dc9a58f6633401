"""What captions name, asked alike of scenes, collages and COCO's photographs: which word to hide, and which regions.

Regions are numbered as a detector gives them: objects of a scene, things of a collage, annotated boxes of a photograph.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import Dataset

from mmlearn.data.boxes import BoxDetector, BoxedImageText, phrases
from mmlearn.data.synthetic.scenes import Link
from mmlearn.data.user_data import own_pairs, without_boxes


class NamedRegions(Dataset):
    """Those captions of COCO that name two categories or more of which the picture has boxes.

    ``folder`` is COCO as it is unpacked, with its ``instances_*.json``; the first ``length`` such captions are taken.
    Raises ``ValueError`` for data without boxes or without such a caption, and as
    :func:`~mmlearn.data.user_data.own_pairs` does.
    """

    def __init__(self, folder: str | Path, split: str, *, size: int = 224, length: int = 1_000_000, objects: int = 36):
        self.data, self.objects = own_pairs(folder, split, size=size, boxes=True), objects
        if line := without_boxes(self.data):
            raise ValueError(f"Regions are annotated boxes. {line}")
        two = (row for row in range(len(self.data)) if len(self.named(row)) > 1)
        self.rows = list(islice(two, length))
        if not self.rows:
            raise ValueError(f"No caption of {folder} ({split}) names two things that have boxes.")

    def named(self, row: int) -> set[int]:
        """The categories that a caption names and that have boxes in its picture, which is not read."""
        sample = self.data.with_image(row, torch.empty(3, self.data.size, self.data.size))
        links = named_links(sample, self.objects) if isinstance(sample, BoxedImageText) else []
        return {link.object for link in links}

    @property
    def words(self) -> set[str]:
        """All words that name a category."""
        return {word for name in phrases(self.data.instances.categories)[1] for word in name.split()}

    def caption(self, index: int) -> str:
        """A caption without its picture."""
        return self.data.caption(self.rows[index])

    def detector(self) -> "WholeDetector":
        """What gives the regions of these pictures."""
        return WholeDetector(self.data.instances.categories, most=self.objects)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> BoxedImageText:
        return self.data[self.rows[index]]


class WholeDetector(BoxDetector):
    """A :class:`BoxDetector` whose batches all have ``most`` regions; those that a picture lacks are padding."""

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        return {
            name: F.pad(value, (0, 0) * (value.ndim - 2) + (0, self.most - value.shape[1]))
            for name, value in super().__call__(samples).items()
        }


def named_links(sample: Any, count: int) -> list[Link]:
    """The links of a caption that mean one of the first ``count`` regions."""
    return [link for link in sample.links if right_regions(sample, link, count).any()]


def right_regions(sample: Any, link: Link, count: int) -> Bool[Tensor, "count"]:
    """Which of ``count`` regions a link means: an object of a scene, or all boxes of a category."""
    right = torch.zeros(count, dtype=torch.bool)
    right[[number for number in sample.boxes_of(link) if number < count]] = True
    return right


def grounded_position(sample: Any, link: Link) -> tuple[int, int]:
    """Where the word is that a picture alone can tell: a scene's colour, a photograph's category, a collage's noun."""
    return sample.grounded_position(link)


def region_cells(sample: Any, side: int, count: int) -> Float[Tensor, "count cells"]:
    """1 where a cell, of a grid of ``side`` × ``side``, belongs to a region; 0 for regions that are not there."""
    cells = sample.region_cells(side)[:count]
    return F.pad(cells, (0, 0, 0, count - len(cells)))
