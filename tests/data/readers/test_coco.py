"""COCO-style captions: a small annotation file in the published layout, and ones that are damaged."""

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from testing_tools import refused

from mmlearn.data import load
from mmlearn.data.catalogue import held_out
from mmlearn.data.readers.coco import CocoCaptions, CocoFolder, read_instances
from mmlearn.training.evaluate import evaluate
from mmlearn.training.runs import new_run


@pytest.fixture
def coco(tmp_path):
    """Three pictures with five captions in an order of their own, as captions_val2017.json has them."""
    images = tmp_path / "val2017"
    images.mkdir()
    for i, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (8, 6), colour).save(images / f"{i:012}.png")
    content = {
        "info": {"description": "COCO 2017 Dataset", "version": "1.0", "year": 2017},
        "licenses": [{"url": "", "id": 1, "name": "none"}],
        "images": [
            {"license": 1, "file_name": f"{i:012}.png", "height": 6, "width": 8, "id": 100 + i} for i in (2, 0, 1)
        ],
        "annotations": [
            {"image_id": 102, "id": 7, "caption": "A blue field.\n"},
            {"image_id": 100, "id": 8, "caption": "A red field."},
            {"image_id": 102, "id": 9, "caption": " Blue, all of it. "},
            {"image_id": 101, "id": 3, "caption": "日本語 green"},
            {"image_id": 100, "id": 1, "caption": "Red."},
        ],
    }

    def write(**changes):
        path = tmp_path / "captions.json"
        path.write_text(json.dumps(content | changes), encoding="utf-8")
        return images, path

    return SimpleNamespace(write=write, images=images, content=content)


def test_one_sample_a_caption(coco):
    data = CocoCaptions(*coco.write(), size=4)
    got = {(data[i].source, data.caption(i), data.numbers[i]) for i in range(len(data))}
    assert len(data) == 5
    assert got == {
        ("000000000000.png", "A red field.", 0),
        ("000000000000.png", "Red.", 0),
        ("000000000001.png", "日本語 green", 1),
        ("000000000002.png", "A blue field.", 2),
        ("000000000002.png", "Blue, all of it.", 2),
    }
    for i in range(5):
        assert data[i].caption == data.caption(i)
        assert data[i].image.shape == (3, 4, 4)
        assert int(data[i].image[:, 2, 2].argmax()) == data.numbers[i]


def test_as_torchvision_reads_it(coco, capsys):
    pytest.importorskip("pycocotools")
    from torchvision.datasets import CocoCaptions as Published

    images, path = coco.write()
    published = Published(str(images), str(path))
    capsys.readouterr()
    data = CocoCaptions(images, path)
    assert data.ids == published.ids
    assert [(data.numbers[i], data.caption(i)) for i in range(len(data))] == [
        (number, caption.strip()) for number, (_, captions) in enumerate(published) for caption in captions
    ]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"annotations": []}, "holds no caption"),
        (
            {"annotations": [{"image_id": 100, "id": 1, "category_id": 3}]},
            "annotation 1: no 'caption'; it has image_id, id, category_id",
        ),
        ({"annotations": [{"image_id": 100, "id": 1, "caption": 5}]}, "annotation 1: caption is a text, not 5"),
        ({"images": [{"id": 100}]}, "image 1: no 'file_name'; it has id"),
        ({"images": 5}, "no COCO captions file"),
    ],
)
def test_annotations_of_another_kind(coco, changes, expected):
    refused(f"captions.json.*{expected}", CocoCaptions, *coco.write(**changes))


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"images": [], "annotations": []', "\x00"])
def test_a_damaged_file(coco, text):
    images, path = coco.write()
    path.write_text(text)
    refused(r"captions\.json is no COCO captions file", CocoCaptions, images, path)


def test_a_file_in_another_encoding(coco):
    images, path = coco.write()
    path.write_bytes(path.read_bytes().replace(b"A red", b"\xff\xfe"))
    refused(r"captions\.json is no COCO captions file", CocoCaptions, images, path)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "x/../../secret.png", "link.png", "a\0b.png"])
def test_a_image_outside_its_folder_is_refused(coco, tmp_path, name):
    """A link that leads out counts as well."""
    Image.new("RGB", (8, 6)).save(tmp_path / "secret.png")
    (coco.images / "link.png").symlink_to(tmp_path / "secret.png")
    images = [dict(one) for one in coco.content["images"]]
    images[1]["file_name"] = name
    refused("is outside the folder|holds the control character", CocoCaptions, *coco.write(images=images))


def test_what_is_missing_is_named(coco):
    images, path = coco.write()
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*none"):
        CocoCaptions(images / "none", path)
    with pytest.raises(FileNotFoundError, match=r"There is no file .*none\.json"):
        CocoCaptions(images, images / "none.json")
    data = CocoCaptions(images, path)
    (images / "000000000001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"There is no picture .*000000000001\.png"):
        data[data.numbers.index(1)]


def unpacked(coco, *names, images=""):
    """COCO's own folders, with the same three pictures in each."""
    root = coco.images.parent / "coco"
    (root / "annotations").mkdir(parents=True)
    for name in names:
        (root / "annotations" / f"captions_{name}.json").write_text(json.dumps(coco.content))
        (root / images).mkdir(exist_ok=True)
        (root / images / name).symlink_to(coco.images)
    return root


@pytest.mark.parametrize("images", ["", "images"])
def test_a_folder_as_it_is_unpacked(coco, images):
    root = unpacked(coco, "train2014", "train2017", "val2017", images=images)
    (root / images / "train2014").unlink()
    (root / "annotations" / "captions_train2014.json").write_text("damaged, and not asked for")
    data = load(root, "train", size=4)
    assert type(data) is CocoFolder
    assert (len(data), data.images) == (5, root / images / "train2017")
    assert len(load(root, "val")) == 5
    refused(r"no captions of 'test'; choose from train, val", load, root, "test")
    refused(r"no captions of 't'", load, root, "t")
    (root / "captions.csv").write_text("image,caption\nown.png,the user's own\n")
    (root / "own.png").write_bytes((coco.images / "000000000000.png").read_bytes())
    assert load(root, "all").caption(0) == "the user's own"
    assert held_out(root) == "test"  # of the user's own, where COCO has val
    (root / "captions.csv").unlink()
    assert held_out(root) == "val"


def test_a_folder_without_its_images(coco):
    root = unpacked(coco, "val2017")
    (root / "val2017").unlink()
    with pytest.raises(FileNotFoundError, match=f"There is no folder {root}/val2017 of pictures"):
        load(root, "val")


def test_no_caption_of_a_image_is_wrong(coco):
    """Measured on val, because there is no test split: the blue picture has two captions, and either finds it."""
    root = unpacked(coco, "train2017", "val2017")
    data = load(root, size=32)
    run = new_run("clip", data)
    rows = evaluate(run, str(root))
    assert rows["image to text R@1 of 5"]["chance"] == pytest.approx((2 + 2 + 1) / 3 / 5)
    assert rows["text to image R@1 of 3"]["chance"] == pytest.approx(1 / 3)
    colour = {0: [1, 0], 1: [-1, 2], 2: [-1, -2]}
    run.system.encode_image = lambda image: torch.tensor(
        [colour[int(one.mean((1, 2)).argmax())] for one in image]
    ).float()
    texts = {data.caption(i): colour[data.numbers[i]] for i in range(5)}
    tokens, mask = run.tokenizer(list(texts))
    known = {tuple(row[real].tolist()): value for row, real, value in zip(tokens, mask, texts.values())}
    run.system.encode_text = lambda tokens, mask: torch.tensor(
        [known[tuple(row[real].tolist())] for row, real in zip(tokens, mask)]
    ).float()
    rows = evaluate(run, str(root))
    assert rows["image to text R@1 of 5"]["obtained"] == rows["text to image R@1 of 3"]["obtained"] == 1


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"categories": [{"id": 1}]}', json.dumps({"categories": [], "annotations": [5]})]
)
def test_a_damaged_instances_file(text, tmp_path):
    (tmp_path / "instances_val2017.json").write_text(text)
    refused(r"instances_val2017\.json is no COCO instances file", read_instances, tmp_path / "instances_val2017.json")
