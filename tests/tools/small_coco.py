"""A small COCO, as it is unpacked: captions and instances in the published layout, beside pictures."""

import json

import numpy as np
from PIL import Image

CATEGORIES = {1: "person", 3: "car", 10: "traffic light", 17: "cat", 18: "dog", 58: "hot dog", 67: "dining table"}
# Width, height, captions, and (category, [left, top, width, height], iscrowd) of each picture.
IMAGES = {
    7: (200, 100, ["Two men near a Traffic  Light.\n", "People wait."], [
        (1, [60, 10, 20, 80], 0), (1, [110, 20, 30, 70], 0), (10, [100, 0, 10, 25], 0), (3, [0, 40, 45, 30], 0),
    ]),
    9: (100, 200, ["A hot dog on a table, and no dog", "lunch"], [
        (58, [20, 90, 40, 20], 0), (67, [0, 60, 100, 140], 0), (18, [10, 10, 30, 20], 0),
    ]),
    12: (120, 120, ["A crowd of people and three dogs"], [
        (1, [0, 0, 120, 60], 1), (18, [6, 72, 12, 12], 0), (18, [24, 72, 24, 24], 0), (18, [60, 72, 30, 48], 0),
    ]),
    20: (64, 64, ["A cat that nobody annotated"], []),
}  # fmt: skip


def write_coco(root, splits=("train2017", "val2017"), copies=1, instances=True):
    """Every split has the same pictures, ``copies`` times, with ids of their own."""
    (root / "annotations").mkdir(parents=True)
    for split in splits:
        (root / split).mkdir()
        images, captions, boxes = [], [], []
        for copy in range(copies):
            for number, (width, height, said, things) in IMAGES.items():
                image = number + 100 * copy
                name = f"{image:012}.jpg"
                shades = np.random.default_rng(image).integers(0, 255, (height, width, 3), np.uint8)
                Image.fromarray(shades).save(root / split / name)
                images.append({"id": image, "file_name": name, "width": width, "height": height, "license": 1})
                captions += [{"image_id": image, "caption": text} for text in said]
                boxes += [
                    {"image_id": image, "category_id": kind, "bbox": box, "iscrowd": crowd, "area": 1.0}
                    for kind, box, crowd in things
                ]
        categories = [{"supercategory": "thing", "id": number, "name": name} for number, name in CATEGORIES.items()]
        for kind, content in (("captions", captions), *([("instances", boxes)] if instances else [])):
            content = {"info": {}, "licenses": [], "images": images, "annotations": _numbered(content)}
            content |= {"categories": categories} if kind == "instances" else {}
            (root / "annotations" / f"{kind}_{split}.json").write_text(json.dumps(content))
    return root


def _numbered(items):
    return [item | {"id": number} for number, item in enumerate(items, 1)]
