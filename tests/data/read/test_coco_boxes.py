"""COCO's boxes: words and boxes of a small COCO against what was written, and the crop against the pixels."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_coco import CATEGORIES, write_coco
from testing_tools import close, refused

from mmlearn.data import Tokenizer, fetch, load
from mmlearn.data.read.coco_boxes import BoxedImageText, cropped, phrases, plural, read_instances
from mmlearn.data.read.pictures import ImageText, read_picture
from mmlearn.evaluation import find_mentions, pointing_accuracy, pointing_chance
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


def test_a_picture_without_annotations(samples):
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
    image = read_picture(tmp_path / "box.png", 64)[0]
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


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"categories": [{"id": 1}]}', json.dumps({"categories": [], "annotations": [5]})]
)
def test_a_damaged_instances_file(text, tmp_path):
    (tmp_path / "instances_val2017.json").write_text(text)
    refused(r"instances_val2017\.json is no COCO instances file", read_instances, tmp_path / "instances_val2017.json")
