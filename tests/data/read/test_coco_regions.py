"""Regions of COCO: boxes, crops and classes against the annotations and torchvision."""

import dataclasses

import pytest
import torch
import torchvision
from small_coco import CATEGORIES, write_coco
from testing_tools import close, refused

from mmlearn.data import Collate, Tokenizer, fetch, load
from mmlearn.data.fields import MaskedRegions, Regions, Tokens
from mmlearn.data.read.coco_regions import BoxDetector
from mmlearn.models.fusion.uniter import UNITER, UNITERConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load(write_coco(tmp_path_factory.mktemp("data") / "coco"), "train", size=64, boxes=True)


def test_regions_are_the_boxes_that_links_count(data):
    samples = fetch(data, range(6))
    detector = BoxDetector(data.instances.categories, width=4)
    found = detector(samples)
    assert {name: tuple(x.shape) for name, x in found.items()} == {
        "regions": (6, 3, 48 + 7),
        "boxes": (6, 3, 4),
        "region_mask": (6, 3),
        "region_classes": (6, 3, 7),
    }
    assert detector.region_width == 55
    for i, sample in enumerate(samples):
        count = max(len(sample.names), 1)
        assert found["region_mask"][i].tolist() == [k < count for k in range(3)]
        close(found["boxes"][i, : len(sample.names)], sample.boxes / 64)
        named = found["region_classes"][i, : len(sample.names)].sort(1, descending=True).values
        close(named, torch.tensor([0.9, *[0.1 / 6] * 6]).expand_as(named))
        likeliest = [list(CATEGORIES.values())[k] for k in found["region_classes"][i].argmax(1)[: len(sample.names)]]
        assert likeliest == list(sample.names)
        for link in sample.links:
            assert {likeliest[k] for k in sample.boxes_of(link)} <= {sample.categories[link.object]}
        assert (found["regions"][i, count:] == 0).all()
        boxes = [found["boxes"][i, :count] * 64]
        crops = torchvision.ops.roi_align(sample.image[None], boxes, 4, sampling_ratio=4, aligned=True)
        close(found["regions"][i, :count, :48].unflatten(1, (3, 4, 4)) * 4 + 0.4, crops, 1e-5)
    nothing = next(i for i, sample in enumerate(samples) if not sample.names)
    assert found["boxes"][nothing, 0].tolist() == [0, 0, 1, 1]
    close(found["region_classes"][nothing, 0], torch.full((7,), 1 / 7))


def test_at_most_so_many_regions_and_the_largest(data):
    few, every = (BoxDetector(data.instances.categories, most=most)(fetch(data, range(6))) for most in (2, 36))
    assert few["regions"].shape[:2] == (6, 2)
    assert all(torch.equal(few[name], every[name][:, :2]) for name in few)


def test_a_system_of_regions_learns_from_them(data):
    samples, detector = fetch(data, range(6)), BoxDetector(data.instances.categories)
    tokenizer = Tokenizer.train([sample.caption for sample in samples], vocab_size=300)
    regions = Regions(detector)
    sizes = regions.sizes() | {"vocab_size": tokenizer.vocab_size, "max_length": tokenizer.max_length}
    config = UNITERConfig.tiny()
    config = dataclasses.replace(config, **{name: sizes[name] for name in sizes.keys() & vars(config).keys()})
    losses = UNITER(config).loss(Collate((Tokens(tokenizer), regions), (MaskedRegions(),))(samples))
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())


def test_what_it_cannot_take(data):
    detector = BoxDetector(data.instances.categories)
    refused("ImageText has none; give COCO with its instances", detector, [load(data.images.parent, size=8)[0]])
    refused("at least one picture", detector, [])
    refused("at least 2 classes", BoxDetector, ["thing"])
