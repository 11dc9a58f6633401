"""easy-VQA: a tiny package laid out like the published one, and the published one itself where it is installed."""

import json
from collections import Counter, defaultdict
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from testing_tools import refused

from mmlearn.data import Batches, Tokenizer, fields
from mmlearn.data.packaged import easy_vqa as module
from mmlearn.data.packaged.easy_vqa import EasyVQA
from mmlearn.data.synthetic.scene_tasks import task_collate

ROWS = {
    "train": [
        ["what is the blue shape?", "circle", 0],
        ["is there not a blue shape?", "no", 0],
        ["what color is the shape?", "red", 7],
    ],
    "test": [["is a red shape present?", "yes", 3], ["what is the color of the circle?", "blue", 3]],
}
ANSWERS = ["circle", "red", "yes", "blue", "no"]
COLOURS = {0: (0, 0, 255), 7: (255, 0, 0), 3: (51, 102, 153)}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder of a small ``easy_vqa`` that is found before any installed one."""
    data = tmp_path / "easy_vqa" / "data"
    for split, rows in ROWS.items():
        (data / split / "images").mkdir(parents=True)
        (data / split / "questions.json").write_text(json.dumps(rows))
        for image in {row[2] for row in rows}:
            Image.new("RGB", (64, 64), COLOURS[image]).save(data / split / "images" / f"{image}.png")
    (data / "answers.txt").write_text("\n".join(ANSWERS) + "\n")
    (tmp_path / "easy_vqa" / "__init__.py").write_text("raise RuntimeError('nothing needs to run this')")
    monkeypatch.syspath_prepend(tmp_path)
    return data


def test_rows_are_the_published_ones(package):
    for split, rows in ROWS.items():
        data = EasyVQA(split, size=16)
        assert len(data) == len(rows)
        assert data.labels == tuple(ANSWERS)
        for sample, (text, answer, image) in zip((data[i] for i in range(len(data))), rows):
            assert (sample.text, sample.question.answer, data.labels[sample.label]) == (text, answer, answer)
            assert sample.source == f"{split}/{image}.png"
            assert sample.image.shape == (3, 16, 16)
            assert (sample.image[:, 3, 5] * 255).round().tolist() == list(COLOURS[image])
            assert sample.caption == f"{text} {answer}"
        assert [data.caption(i) for i in range(len(data))] == [f"{text} {answer}" for text, answer, _ in rows]
        assert data.texts() == [row[0] for row in rows]


def test_kinds(package):
    assert [sample.kind for sample in (EasyVQA("train")[i] for i in range(3))] == ["shape", "absence", "colour"]
    assert [sample.kind for sample in (EasyVQA("test")[i] for i in range(2))] == ["existence", "colour"]


def test_batches_are_those_of_a_task(package):
    data = EasyVQA("train", size=24)
    tokenizer = Tokenizer.train(data.texts())
    batch = task_collate(tokenizer, (fields.Image(),))([data[i] for i in (2, 0)])
    assert batch.keys() == {"image", "tokens", "mask", "kind", "answer"}
    assert batch["answer"].tolist() == [1, 0]
    assert batch["kind"].tolist() == [0, 1]
    assert torch.equal(batch["image"], torch.stack([data[2].image, data[0].image]) * 2 - 1)
    questions, mask = tokenizer([ROWS["train"][2][0], ROWS["train"][0][0]])  # and not their answers
    assert torch.equal(batch["tokens"], questions[:, : mask.sum(1).max()])
    blind = task_collate(tokenizer, (fields.Image(),), blind=True)([data[i] for i in (2, 0)])
    assert (blind["image"] == 0).all()
    assert Batches(data, task_collate(tokenizer, (fields.Image(),)), 2)[5]["image"].shape == (2, 3, 24, 24)


def test_an_unknown_split_is_answered_with_the_published_ones(package):
    refused("easy-vqa has no split 'val'; choose from train, test", EasyVQA, "val")


def test_without_the_package_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    refused(r"pip install -e '\.\[vqa\]'\.$", EasyVQA)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("answers.txt", None),
        ("train/questions.json", None),
        ("train/questions.json", "[[1, 2"),
        ("train/questions.json", '[["is it?", "perhaps", 0]]'),
        ("train/questions.json", '[["is it?", "yes"]]'),
        ("train/questions.json", '[["is it?", "yes", "first"]]'),
        ("train/questions.json", "7"),
        ("answers.txt", "yes no"),
    ],
)
def test_a_package_that_is_not_whole_is_refused_in_one_line(package, file, content):
    (package / file).unlink()
    if content is not None:
        (package / file).write_text(content)
    refused(r"is no whole easy-vqa .*pip install --force-reinstall", EasyVQA)


def test_a_missing_image_is_named(package):
    (package / "train" / "images" / "7.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"7\.png"):
        EasyVQA()[2]


# The published data.

installed = pytest.mark.skipif(find_spec("easy_vqa") is None, reason="pip install -e '.[vqa]'")


@installed
def test_counts_are_those_the_author_states():
    train, test = (EasyVQA(split)._asked for split in module.SPLITS)
    assert (len(train), len({row[3] for row in train})) == (38_575, 4_000)
    assert (len(test), len({row[3] for row in test})) == (9_673, 1_000)
    assert len({row[1] for row in train}) == len({row[2] for row in train}) == 13
    assert [sum(row[1] in ("yes", "no") for row in rows) for rows in (train, test)] == [28_407, 7_136]


@installed
def test_a_blind_guesser_gets_what_the_docstring_says():
    counts = defaultdict(Counter)
    for text, answer, *_ in EasyVQA("train")._asked:
        counts[text][answer] += 1
    guessed = [counts[text].most_common(1)[0][0] == answer for text, answer, *_ in EasyVQA("test")._asked]
    assert f"gives {np.mean(guessed):.3f} of" in " ".join(module.__doc__.split())


@installed
def test_images_show_the_answer():
    """The most frequent colour but the ground's has the hue of the answer, for colours that one channel tells."""
    data = EasyVQA("test")
    channel = {"red": 0, "blue": 2}
    rows = [i for i in range(3000) if data._asked[i][1] in channel and "color" in data._asked[i][0]]
    assert len(rows) > 50
    for i in rows:
        pixels = (data[i].image.flatten(1).T * 255).round().int()
        ground = pixels[0]
        shape = pixels[(pixels != ground).any(1)].mode(0).values
        assert shape.argmax() == channel[data[i].question.answer]
    assert {data[i].kind for i in rows} == {"colour"}
