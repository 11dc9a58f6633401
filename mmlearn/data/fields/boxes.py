"""Fields of boxes: the objects of a picture, and the one that is spoken of."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from mmlearn.data.boxes import picture_size
from mmlearn.data.fields.field import Batch, Field, size
from mmlearn.layers.config import Config


@dataclass(frozen=True)
class Objects(Field):
    """``boxes`` (b, p, 4), left, top, right and bottom as shares of the picture, and ``object_classes`` (b, p).

    ``object_mask`` says which are real. Samples have ``boxes`` in pixels, ``names`` of what is in them, and ``known``,
    all names that there are; their number is the size ``num_classes`` of the configuration.
    """

    names: tuple[str, ...] = ()

    holds = {"boxes": "Float b p 4", "object_classes": "Int b p < num_classes", "object_mask": "Bool b p"}
    known = ("names",)
    needs = "names"
    noun = "boxes with names"
    advice = "use --data scenes or --data collages, or a COCO folder with its instances"
    fixed = "boxes are of pictures as they are, and augmentation changes pictures"

    def data_options(self, config: Config) -> dict[str, Any]:
        return {"boxes": True}

    def fitted(self, data: Dataset, config: Config, seed: int) -> Self:
        return replace(self, names=tuple(data[0].known))

    def sizes(self) -> dict[str, Any]:
        return {"num_classes": len(self.names)}

    def __call__(self, samples: Sequence[Any]) -> Batch:
        number = {name: i for i, name in enumerate(self.names)}
        classes = [torch.tensor([number[name] for name in sample.names], dtype=torch.long) for sample in samples]
        mask = pad_sequence([torch.ones_like(each, dtype=torch.bool) for each in classes], batch_first=True)
        boxes = pad_sequence([shares(sample) for sample in samples], batch_first=True)
        return {"boxes": boxes, "object_classes": pad_sequence(classes, batch_first=True), "object_mask": mask}

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        p = 4
        corner = torch.rand(b, p, 2, generator=generator) * 0.6
        mask = torch.arange(p) < p - torch.arange(b)[:, None] % 3
        classes = torch.randint(size(config, "num_classes"), (b, p), generator=generator)
        boxes = torch.cat([corner, corner + 0.1 + 0.3 * torch.rand(b, p, 2, generator=generator)], -1)
        return {"boxes": boxes * mask[..., None], "object_classes": classes * mask, "object_mask": mask}


def shares(sample: Any) -> Tensor:
    """The boxes of a sample as shares of its picture, (p, 4)."""
    width, height = picture_size(sample)
    return (sample.boxes.reshape(-1, 4) / torch.tensor([width, height, width, height])).clamp(0, 1)
