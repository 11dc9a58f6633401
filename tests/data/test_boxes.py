"""Boxes of a small COCO: words and crops against what was written, regions against the annotations and torchvision."""

import dataclasses

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from small_coco import CATEGORIES, write_coco
from testing_tools import close, refused

from mmlearn.data import Collate, Tokenizer, fetch, load
from mmlearn.data.boxes import BoxDetector, BoxedImageText, cropped, phrases, plural
from mmlearn.data.fields import MaskedRegions, Regions, Tokens
from mmlearn.data.readers.images import ImageText, read_image
from mmlearn.evaluation import find_mentions, pointing_accuracy, pointing_chance
from mmlearn.models.fusion.uniter import UNITER, UNITERConfig
from mmlearn.training.evaluate import evaluate
from mmlearn.training.runs import new_run


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("data") / "coco")


@pytest.fixture(scope="module")
def samples(coco):
    return {sample.caption: sample for sample in fetch(load(coco, "val", size=50, boxes=True), range(6))}


def linked(sample):
    return [(sample.caption[link.start : link.end], sample.categories[link.object]) for link in sample.links]


def test_words_are_linked_to_categories(samples):
    assert {caption: linked(sample) for caption, sample in samples.items()} == {
        "Two men near a Traffic  Light.": [("men", "person"), ("Traffic  Light", "traffic light")],
        "People wait.": [("People", "person")],
        "A hot dog on a table, and no dog": [("hot dog", "hot dog"), ("table", "dining table")],  # the dog is cut off
        "lunch": [],
        "A crowd of people and three dogs": [("people", "person"), ("dogs", "dog")],
        "A cat that nobody annotated": [],
    }


def test_boxes_are_those_of_the_middle_square(samples):
    """200 × 100 loses 50 pixels at the left and at the right, and is then halved."""
    sample = samples["People wait."]
    assert type(sample) is BoxedImageText
    assert dict(zip(sample.names, sample.boxes.tolist())) == {
        "person": [5, 5, 15, 45],  # the smaller one comes later
        "traffic light": [25, 0, 30, 12.5],
    }
    assert sample.names == ("person", "person", "traffic light")
    assert sample.boxes[0].tolist() == [30, 10, 45, 45]  # the largest first; the car is cut off


def test_a_mask_is_the_union_of_all_boxes_of_its_category(samples):
    sample = samples["People wait."]
    expected = torch.zeros(50, 50, dtype=torch.bool)
    expected[10:45, 30:45] = expected[5:45, 5:15] = True
    assert torch.equal(sample.masks[sample.links[0].object], expected)
    assert sample.boxes_of(sample.links[0]) == [0, 1]


def test_a_crowd_is_pointed_at_but_is_no_thing(samples):
    sample = samples["A crowd of people and three dogs"]
    assert sample.names == ("dog",) * 3
    people, dogs = sample.links
    assert sample.boxes_of(people) == []
    assert sample.boxes_of(dogs) == [0, 1, 2]
    assert sample.masks[people.object].sum() == 25 * 50
    assert sample.boxes[:, 2:].sub(sample.boxes[:, :2]).prod(1).tolist() == [250, 100, 25]


def test_a_image_without_annotations(samples):
    sample = samples["A cat that nobody annotated"]
    assert (sample.links, sample.names, sample.categories) == ((), (), ())
    assert sample.boxes.shape == (0, 4)
    assert sample.masks.shape == (0, 50, 50)


@pytest.mark.parametrize(("width", "height"), [(200, 100), (90, 151), (77, 77), (640, 427)])
def test_the_crop_of_boxes_is_that_of_pixels(width, height, tmp_path):
    """A white box on black is where its box says, as torchvision's crop of the same picture has it too."""
    shades = np.zeros((height, width, 3), np.uint8)
    left, top = width // 2 - 12, height // 2 - 9
    shades[top : top + 20, left : left + 30] = 255
    Image.fromarray(shades).save(tmp_path / "box.png")
    image = read_image(tmp_path / "box.png", 64)[0]
    (box,) = cropped(torch.tensor([[left, top, 30.0, 20.0]]), (width, height), 64)
    rows, columns = (image > 0.5).nonzero().T
    found = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert (found - box).abs().max() <= 0.75  # to the next whole pixel


def test_plurals():
    names = "dog bus bench knife baby toy box sheep tv sandwich teddy bear"
    assert [plural(name) for name in names.split()] == [
        *("dogs", "buses", "benches", "knifes", "babies", "toys", "boxes", "sheeps", "tvs", "sandwiches"),
        *("teddies", "bears"),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("hot dogs, hot-dog stand", ["hot dog"]),
        ("dogma and a watchdog", []),
        ("A MAN'S dog", ["person", "dog"]),
        ("TRAFFIC\nLIGHTS and lights", ["traffic light"]),
        ("ladies with kitties in taxis", ["person", "cat", "car"]),
        ("ſ K İ dog", ["dog"]),
    ],
)
def test_names_are_found_as_whole_words(text, found):
    pattern, names = phrases(tuple(CATEGORIES.values()))
    assert [names.get(" ".join(match[0].lower().split())) for match in pattern.finditer(text)] == found


@pytest.mark.parametrize("grid", [(5, 5), (2, 10)])
def test_pointing_on_coco_is_as_on_scenes(samples, grid):
    samples = list(samples.values())
    tokenizer = Tokenizer.train([sample.caption for sample in samples], vocab_size=300, max_length=40)
    mentions = find_mentions(samples, tokenizer, grid)
    assert mentions.phrase == [sample.caption[a.start : a.end] for sample in samples for a in sample.links]
    assert pointing_accuracy(mentions.region, mentions.region) == 1
    chance = pointing_chance(mentions.region)
    assert pointing_accuracy(torch.zeros_like(mentions.region), mentions.region) == pytest.approx(chance)
    two = next(i for i, phrase in enumerate(mentions.phrase) if phrase == "People")
    for box in samples[mentions.sample[two]].boxes[:2]:  # a hit in either person counts
        middle = (box.view(2, 2).mean(0) / 50).tolist()
        patch = int(middle[1] * grid[0]) * grid[1] + int(middle[0] * grid[1])
        assert pointing_accuracy(torch.eye(grid[0] * grid[1])[patch][None], mentions.region[two][None]) == 1


def test_evaluation_points_where_there_are_boxes(coco, tmp_path):
    run = new_run("clip", load(coco, "train", size=32))
    rows = evaluate(run, str(coco))
    assert 0 < rows["pointing accuracy"]["chance"] < 1
    without = write_coco(tmp_path / "coco", instances=False)
    assert "pointing accuracy" not in evaluate(run, str(without))


def test_boxes_are_read_where_they_are_asked_for_and_there(coco, tmp_path):
    assert type(load(coco, "train", size=8)[0]) is ImageText
    bare = load(write_coco(tmp_path / "coco", instances=False), "train", size=8, boxes=True)
    assert type(bare[0]) is ImageText
    close(bare[0].image, load(coco, "train", size=8)[0].image)


# Regions.


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
