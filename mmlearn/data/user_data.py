"""The reader's own pictures with captions, for a chapter that is run on them."""

import os
from pathlib import Path

from torch.utils.data import Dataset

from mmlearn.data.catalogue import given_options, held_out, load
from mmlearn.data.hashing import stream
from mmlearn.suggestions import suggest

SPLITS = ("train", "val", "test")


def own_pairs(path: str | Path, split: str = "train", *, size: int = 64, boxes: bool = False) -> Dataset:
    """Pictures of ``size`` pixels with captions: a folder with captions, COCO as it is unpacked, or WebDataset shards.

    Samples have ``image`` (3, size, size), ``caption`` and ``source``. With ``boxes`` those of COCO are
    :class:`~mmlearn.data.boxes.BoxedImageText`, so that words can be asked to point; other data have none,
    see :func:`without_boxes`. COCO's test captions are not public: val and test are the two halves of its val, by
    picture. All else is as :func:`load` has it.

    Raises ``ValueError`` for what is no folder, holds no pictures with captions, or has no such split; and what the
    readers raise for damaged or missing files.
    """
    from mmlearn.data.readers.images import ImageText

    if split not in SPLITS:
        raise ValueError(f"Data of one's own have no split {split!r}; {suggest(split, SPLITS)}.")
    if not os.path.isdir(path):
        raise ValueError(
            f"There is no folder {str(path)!r}; give a folder with captions.csv, COCO as it is unpacked, or a folder "
            "of WebDataset shards."
        )
    coco = held_out(path) == "val"
    data = load(path, "val" if coco and split == "test" else split, **given_options(path, size=size, boxes=boxes))
    if coco and split != "train":
        half = SPLITS.index(split) - 1
        data.keep_images(lambda image: int(stream("halves of val", image)) % 2 == half)
    if not isinstance(data[0], ImageText):
        raise ValueError(f"{path} holds sounds; this needs pictures with captions.")
    return data


def without_boxes(data: Dataset) -> str:
    """A line that says why nothing can point in these data, or nothing where words are linked to boxes."""
    if getattr(data, "instances", None) is not None or hasattr(data[0], "links"):
        return ""
    return (
        "These data have no boxes, so pointing is not measured; COCO's are instances_*.json in its folder annotations."
    )
