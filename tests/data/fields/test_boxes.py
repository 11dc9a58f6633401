"""Boxes of objects as shares of the picture, with classes from the names that the data knows."""

from pathlib import Path

import torch
from testing_tools import close, refused

from mmlearn.data import load
from mmlearn.data.fields import Objects
from mmlearn.models.vision.detr import DETRConfig


def test_objects_are_those_of_the_scene():
    data = load("scenes", "train", size=32)
    samples = [data[i] for i in range(6)]
    field = Objects().fitted(data, DETRConfig.tiny(), 0)
    batch = field(samples)
    assert field.sizes() == {"num_classes": 12}
    for i, sample in enumerate(samples):
        real = batch["object_mask"][i]
        assert [field.names[k] for k in batch["object_classes"][i][real]] == [item.shape for item in sample.objects]
        close(batch["boxes"][i][real] * 32, sample.boxes.clamp(0, 32), 1e-4)
    assert not batch["boxes"][~batch["object_mask"]].any()
    refused("detr reads boxes with names", field.check_sample, type("Plain", (), {"caption": "a ring"})(), "detr")
    assert torch.equal(field.load(Path(), {"names": list(field.names)})(samples)["boxes"], batch["boxes"])


def test_boxes_of_collages_need_no_picture():
    data = load("collages", "train", size=48)
    samples = data.__getitems__(range(4))
    batch = Objects().fitted(data, DETRConfig.tiny(), 0)(samples)
    assert not any("image" in vars(sample) for sample in samples)  # drawing it costs most of a batch
    for i, sample in enumerate(samples):
        assert sample.image.shape == (3, 48, 48)
        close(batch["boxes"][i][batch["object_mask"][i]] * 48, sample.boxes.clamp(0, 48), 1e-4)
