"""Regions of scenes: boxes, crops and classes against the pictures and the objects, and errors at the stated rate."""

import numpy as np
import pytest
import torch
import torchvision
from testing_tools import close, refused

from mmlearn.data import load
from mmlearn.data.synthetic.regions import CLASSES, SceneDetector, crop, scene_keys
from mmlearn.data.synthetic.scenes import Scenes


@pytest.fixture(scope="module")
def scenes():
    return Scenes().__getitems__(range(300))


@pytest.fixture(scope="module")
def found(scenes):
    return SceneDetector()(scenes)


def pixels_of(regions, width=8):
    """The features' first part, as shares of full brightness again."""
    return regions[..., : 3 * width**2].unflatten(-1, (3, width, width)) * 4 + 0.3


def beliefs_of(regions):
    """The features' last part: how likely each colour and each shape is."""
    return (regions[..., -24:] * 4 / 6 + 1 / 12).split(12, -1)


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())


def test_shapes_and_padding(scenes, found):
    counts = torch.tensor([len(scene.objects) for scene in scenes])
    assert {name: tuple(x.shape) for name, x in found.items()} == {
        "regions": (300, 9, 216),
        "boxes": (300, 9, 4),
        "region_mask": (300, 9),
        "region_classes": (300, 9, 144),
    }
    assert torch.equal(found["region_mask"], torch.arange(9) < counts[:, None])
    assert set(counts.tolist()) == {8, 9}
    for name in ("regions", "boxes", "region_classes"):
        assert found[name].dtype == torch.float32
        assert (found[name][~found["region_mask"]] == 0).all()


@pytest.mark.parametrize("size", [24, 64])
def test_boxes_are_the_objects_in_reading_order(size):
    samples = Scenes("val", size=size).__getitems__(range(40))
    boxes = SceneDetector()(samples)["boxes"]
    for sample, box in zip(samples, boxes):
        close(box[: len(sample.objects)], (sample.boxes / size).clamp(0, 1), 1e-6)
    assert boxes.min() >= 0
    assert boxes.max() <= 1


@pytest.mark.parametrize(("size", "width"), [(64, 8), (64, 3), (64, 20), (32, 1)])
def test_features_are_what_torchvisions_roi_align_cuts_out(size, width):
    samples = Scenes(size=size).__getitems__(range(12))
    found = SceneDetector(width=width)(samples)
    image = torch.stack([sample.image for sample in samples])
    number = torch.arange(12).repeat_interleave(9)[:, None].float()
    boxes = torch.cat([number, found["boxes"].flatten(0, 1) * size], 1)
    ratio = int(np.ceil(size * 14 / 64 / width))
    expected = torchvision.ops.roi_align(image, boxes, width, sampling_ratio=ratio, aligned=True)
    got = pixels_of(found["regions"], width)
    assert found["regions"].shape == (12, 9, 3 * width**2 + 24)
    real = found["region_mask"]
    close(got[real], expected.view(12, 9, 3, width, width)[real])


def test_a_crop_of_a_ramp_is_a_ramp():
    """In x alone, so that exchanged axes or corners show."""
    image = ((torch.arange(64) + 0.5) / 64).expand(1, 1, 64, 64)
    got = crop(image, torch.tensor([[[0.25, 0.5, 0.5, 1.0]]]), 4, 14)[0, 0, 0]
    close(got, (0.25 + 0.25 * (torch.arange(4) + 0.5) / 4).expand(4, 4))


def test_features_show_the_objects_colour(scenes, found):
    for scene, region in zip(scenes[:50], found["regions"]):
        for i, (item, mask) in enumerate(zip(scene.objects, scene.masks)):
            if item.texture == "solid" and item.size == "large" and item.shape == "square":
                middle = pixels_of(region[i])[:, 3:5, 3:5].mean((1, 2))
                close(middle, scene.image[:, mask].median(1).values, 0.02)


# Classes.


def true_classes(scenes):
    return [[CLASSES.index(f"{item.colour} {item.shape}") for item in scene.objects] for scene in scenes]


def test_without_errors_the_likeliest_class_is_true_and_never_certain(scenes, found):
    assert len(set(CLASSES)) == 144
    for truth, classes in zip(true_classes(scenes), found["region_classes"]):
        assert classes[: len(truth)].argmax(-1).tolist() == truth
    classes = found["region_classes"][found["region_mask"]]
    close(classes.sum(-1), torch.ones(len(classes)))
    assert classes.min() >= 0
    sure = classes.max(-1).values
    assert 0.64 <= sure.min() < 0.68
    assert sure.max() < 1
    assert sure.mean().item() == pytest.approx(0.81, abs=0.01)  # 0.9², the middle of 0.8 to 1 twice


def test_colour_and_shape_are_doubted_apart(found):
    table = found["region_classes"][found["region_mask"]].view(-1, 12, 12)
    close(table, table.sum(2, keepdim=True) * table.sum(1, keepdim=True))


@pytest.mark.parametrize(("width", "rate"), [(8, 0.0), (8, 0.4), (3, 0.4)])
def test_classes_are_read_linearly_from_the_features(scenes, width, rate):
    """The class whose colour and shape have the most weight: a sum, as one linear layer can form it."""
    found = SceneDetector(rate, width)(scenes)
    regions, classes = (found[name][found["region_mask"]] for name in ("regions", "region_classes"))
    layer = torch.zeros(144, 3 * width**2 + 24)
    for i, name in enumerate(CLASSES):
        colour, shape = name.split()
        layer[i, 3 * width**2 + [name.split()[0] for name in CLASSES[::12]].index(colour)] = 1
        layer[i, 3 * width**2 + 12 + [name.split()[1] for name in CLASSES[:12]].index(shape)] = 1
    assert torch.equal((regions @ layer.T).argmax(-1), classes.argmax(-1))
    colour, shape = beliefs_of(regions)
    close((colour[:, :, None] * shape[:, None]).flatten(1), classes)


def test_features_err_with_the_classes_and_boxes_never(scenes, found):
    erring = SceneDetector(0.5)(scenes)
    real = found["region_mask"]
    assert torch.equal(erring["boxes"], found["boxes"])
    assert torch.equal(erring["region_mask"], real)
    assert torch.equal(pixels_of(erring["regions"]), pixels_of(found["regions"]))

    def believed(regions):
        colour, shape = beliefs_of(regions[real])
        return 12 * colour.argmax(-1) + shape.argmax(-1)

    wrong = erring["region_classes"][real].argmax(-1) != found["region_classes"][real].argmax(-1)
    assert wrong.float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(believed(erring["regions"]) != believed(found["regions"]), wrong)
    assert torch.equal(believed(erring["regions"]), erring["region_classes"][real].argmax(-1))
    assert torch.equal(erring["regions"][real][~wrong], found["regions"][real][~wrong])


def test_features_are_moved_to_a_mean_of_about_0(found):
    regions = found["regions"][found["region_mask"]]
    assert regions[:, :192].mean().abs() < 0.01
    assert regions[:, 192:].sum(-1).abs().max() < 1e-5  # shares sum to 1


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_errors_are_as_frequent_as_said_and_as_sure_and_of_every_class(scenes, found, rate):
    classes = SceneDetector(rate)(scenes)["region_classes"]
    real = found["region_mask"]
    right = classes[real].argmax(-1) == found["region_classes"][real].argmax(-1)
    assert (~right).float().mean().item() == pytest.approx(rate, abs=0.03)
    assert classes[real].max(-1).values.mean().item() == pytest.approx(0.81, abs=0.01)
    if rate == 1.0:
        steps = (classes[real].argmax(-1) - found["region_classes"][real].argmax(-1)) % 144
        assert steps.unique().tolist() == list(range(1, 144))


def test_a_higher_rate_keeps_the_errors_of_a_lower(scenes):
    few, many = (SceneDetector(rate)(scenes)["region_classes"].argmax(-1) for rate in (0.2, 0.4))
    truth = SceneDetector()(scenes)["region_classes"].argmax(-1)
    assert torch.equal(few[few != truth], many[few != truth])


# A function of the scene and the seed.


def test_a_scene_is_seen_alike_in_any_batch(scenes):
    detector = SceneDetector(0.3)
    whole = detector(scenes[:20])
    order = [7, 3, 19, 0]
    part = detector([scenes[i] for i in order])
    p = part["boxes"].shape[1]
    assert all(torch.equal(part[name], whole[name][order, :p]) for name in part)
    alone = detector([Scenes()[3]])  # drawn anew, another layout object
    n = len(scenes[3].objects)
    assert all(torch.equal(alone[name][0], whole[name][3, :n]) for name in alone)
    smaller = detector(Scenes(size=24).__getitems__(range(20)))
    assert torch.equal(smaller["region_classes"], whole["region_classes"])


def test_features_do_not_depend_on_the_objects_of_other_images():
    """At this width a large object alone would need more samples a bin than a small one."""
    samples = Scenes(objects=2).__getitems__(range(30))
    detector = SceneDetector(width=12)
    whole = detector(samples)["regions"]
    for i, sample in enumerate(samples):
        assert torch.equal(detector([sample])["regions"][0], whole[i])


def test_another_seed_doubts_and_errs_elsewhere(scenes):
    one, same_seed, other = (SceneDetector(0.3, seed=seed)(scenes[:50]) for seed in (1, 1, 2))
    assert same(one, same_seed)
    assert torch.equal(one["boxes"], other["boxes"])
    assert torch.equal(pixels_of(one["regions"]), pixels_of(other["regions"]))
    assert not torch.equal(one["regions"], other["regions"])
    assert not torch.equal(one["region_classes"].argmax(-1), other["region_classes"].argmax(-1))


def test_nothing_is_drawn_from_global_state(scenes):
    torch.manual_seed(0)
    np.random.seed(0)
    one = SceneDetector(0.3)(scenes[:5])
    torch.manual_seed(1)
    np.random.seed(1)
    assert same(one, SceneDetector(0.3)(scenes[:5]))


def test_every_scene_has_a_key_of_its_own():
    samples = [scene for split in ("train", "val", "test") for scene in Scenes(split).__getitems__(range(300))]
    assert len(set(scene_keys(samples).tolist())) == 900
    assert scene_keys(Scenes(size=24).__getitems__([5]))[0] == scene_keys([samples[5]])[0]
    assert scene_keys([Scenes(seed=1)[5]])[0] != scene_keys([samples[5]])[0]


# Errors.


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_an_error_rate_is_a_share(rate):
    refused("error_rate is a share from 0 to 1", SceneDetector, rate)


def test_a_width_is_positive():
    refused("width=0", SceneDetector, width=0)


def test_only_scenes_can_be_detected(unchecked):
    refused(r"Only scenes .* got EmojiSample", SceneDetector(), [load("emoji", size=24)[0]])
    refused("at least one", SceneDetector(), [])
