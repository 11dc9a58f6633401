"""A run's folder: what is saved is what is loaded, and a folder whose files do not belong together is refused."""

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmlearn.data import data_sets, fetch, load
from mmlearn.data.catalogue import held_out
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.training.checkpoint import save_model
from mmlearn.training.feeding import PAIRED
from mmlearn.training.measure import measure
from mmlearn.training.runs import Run, load_run, new_run, save_run

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def data():
    return load("scenes", "val", size=32)


@pytest.fixture(scope="module")
def folders(data, tmp_path_factory):
    """One folder for each system, not trained."""
    folder = tmp_path_factory.mktemp("runs")
    for name in PAIRED:
        run = new_run(name, data, vocab_size=270)
        save_run(run, folder / name, training={"data": "scenes"})
        save_model(run.system, folder / name / WEIGHTS)
    return folder


@pytest.fixture
def folder(folders, tmp_path):
    return lambda name="clip": Path(shutil.copytree(folders / name, tmp_path / name))


def settings(folder, change):
    """Rewrite ``config.json``."""
    values = json.loads((folder / "config.json").read_text())
    change(values)
    (folder / "config.json").write_text(json.dumps(values))


def refused(folder, *fragments, error=ValueError):
    with pytest.raises(error) as caught:
        load_run(folder)
    assert type(caught.value) is error
    for fragment in (str(folder), *fragments):
        assert fragment in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", PAIRED)
def test_there_and_back(folders, data, name):
    """Configuration, weights, tokenizer, statistics, and so every embedding."""
    made, back = new_run(name, data, vocab_size=270), load_run(folders / name)
    assert back.name == name
    assert back.system.config == made.system.config
    assert not back.system.training
    assert (back.mean, back.std) == (made.mean, made.std)
    samples = fetch(data, range(4))
    batch, again = made.collate()(samples), back.collate()(samples)
    assert all(torch.equal(batch[key], again[key]) for key in batch)
    made.system.eval()
    with torch.no_grad():
        for one, two in zip(made.system(**batch), back.system(**again), strict=True):
            assert torch.equal(one, two)
    assert json.loads((folders / name / "config.json").read_text())["training"] == {"data": "scenes"}


@pytest.mark.parametrize("name", PAIRED)
def test_a_new_run_fits_its_data(data, name):
    """Vocabulary, text length and picture size are the data's, and texts are read off where its tokenizer ends them."""
    run = new_run(name, data, vocab_size=270)
    tokens, mask = run.tokenizer([sample.caption for sample in fetch(data, range(50))])
    assert run.system.config.text.vocab_size == run.tokenizer.vocab_size <= 270
    assert run.system.config.text.max_length == tokens.shape[1] == int(mask.sum(1).max())
    if hasattr(run.system.config, "image"):
        assert run.system.config.image.image_size == 32
    if hasattr(run.system.config, "end_token"):
        assert run.system.config.end_token == run.tokenizer.end_token
    loss = run.system.loss(run.collate()(fetch(data, range(8))))
    assert all(value.isfinite() for value in loss.values())


def test_pictures_are_normalised(data):
    """Over the whole data set, each channel has mean 0 and deviation 1, within what a sample can tell."""
    image = new_run("clip", data, vocab_size=270).collate()(fetch(data, range(0, 2000, 5)))["image"]
    assert image.mean((0, 2, 3)).abs().max() < 0.05
    assert (image.std((0, 2, 3)) - 1).abs().max() < 0.05


def test_a_seed_decides_the_weights(data):
    one, two, other = (new_run("clip", data, vocab_size=270, seed=seed).system.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["image_projection.weight"], other["image_projection.weight"])


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("clp", {}, r"'clp' is no system that trains .*; did you mean 'clip'\? choose from albef, ast, blip, clap"),
        (
            "bert",
            {},
            "'bert' is no system that trains on pictures or sounds with captions: in Python, mmlearn.training.fit",
        ),
        ("clip", {"preset": "tinny"}, r"no preset 'tinny'; did you mean 'tiny'\?"),
        ("clip", {"vocab_size": 100}, "vocab_size must hold 256 bytes"),
        ("clip", {"max_length": 2}, "max_length must leave room"),
    ],
)
def test_runs_that_cannot_be(data, name, options, says):
    with pytest.raises(ValueError, match=says):
        new_run(name, data, **{"vocab_size": 270} | options)


def test_pictures_smaller_than_a_patch():
    with pytest.raises(ValueError, match="Pictures of 8 pixels are smaller than a patch of 16"):
        new_run("clip", load("emoji", size=8), vocab_size=270)


# Faults.


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "tokenizer.json"])
def test_missing_files(folder, name):
    path = folder()
    (path / name).unlink()
    refused(path, name, error=FileNotFoundError)


def test_no_folder(tmp_path):
    refused(tmp_path / "nothing", "give the output folder of a finished mmlearn train", error=FileNotFoundError)


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "tokenizer.json"])
@pytest.mark.parametrize("damage", ["empty", "cut", "pickle", "null", "deep"])
def test_damaged_files(folder, name, damage):
    path = folder()
    content = (path / name).read_bytes()
    (path / name).write_bytes(
        {
            "empty": b"",
            "cut": content[: len(content) * 2 // 3],
            "pickle": pickle.dumps({"weight": 1}),
            "null": b"null",
            "deep": b"[" * 100_000,
        }[damage]
    )
    refused(path, name)


def test_files_of_other_systems(folder):
    """Each file in turn comes from another run."""
    path, other = folder("clip"), folder("filip")
    shutil.copyfile(other / WEIGHTS, path / WEIGHTS)
    refused(path, WEIGHTS, "does not fit its config.json")
    path = Path(shutil.copytree(folder("siglip"), path.parent / "again"))
    shutil.copyfile(other / "config.json", path / "config.json")
    refused(path, WEIGHTS, "does not fit its config.json")


def test_a_tokenizer_of_another_run(folder):
    path = folder()
    Tokenizer.train(["other words"], vocab_size=262, max_length=7).save(path)
    refused(path, "tokenizer.json", "does not belong to its config.json: it has 262 tokens and texts of 7, the model")
    engine = Tokenizer.load(folder("lit")).engine
    Tokenizer(engine, 5).save(path)
    refused(path, "tokenizer.json", "texts of 5")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.update(system="clpi"), "did you mean 'clip'?"),
        (lambda c: c.update(system="vit"), "'vit' is no system that trains"),
        (lambda c: c.update(system=["clip"]), "is no system"),
        (lambda c: c.pop("system"), "'system'"),
        (lambda c: c.pop("mean"), "'mean'"),
        (lambda c: c.update(mean=[0.5]), "three numbers"),
        (lambda c: c.update(mean=[0.5, 0.5, float("nan")]), "three numbers"),
        (lambda c: c.update(std=[0.5, 0.5, 0.0]), "std above 0"),
        (lambda c: c.update(std="abc"), "'a'"),
        (lambda c: c.update(config=[]), "damaged"),
        (lambda c: c["config"].update(wings=2), "CLIPConfig has no field wings"),
        (lambda c: c["config"].pop("text"), "vocab_size|tokens"),
        (lambda c: c["config"]["text"].update(width="64"), "damaged"),
        (lambda c: c["config"]["text"].update(width=-64), "damaged"),
        (lambda c: c["config"]["text"].update(num_heads=5), "no multiple of num_heads 5"),
        (lambda c: c["config"].update(pooling="mean"), "pooling is 'class'"),
        (lambda c: c["config"]["image"].update(num_heads=-1), "num_heads is above 0, not -1"),
        (lambda c: c["config"]["text"].update(norm_epsilon="abc"), "norm_epsilon is a number, not 'abc'"),
        (lambda c: c["config"].update(end_token="abc"), "end_token is a whole number or null, not 'abc'"),
        (lambda c: c["config"].update(end_token=10**6), "whose end_token is 2, not 1000000"),
        (lambda c: c["config"]["text"].update(activation="abc"), "abc"),
        (lambda c: c["config"]["image"].update(dropout=7), "dropout"),
    ],
)
def test_a_config_that_cannot_be(folder, change, says):
    path = folder()
    settings(path, change)
    with pytest.raises(ValueError, match=says.replace("?", r"\?")) as caught:
        load_run(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda c: c["config"].update(embedding_width=100),
            "text_projection.weight ([128, 64] instead of [100, 64]) are of another",
        ),
        (
            lambda c: c["config"]["image"].update(image_size=64),
            "embedding.positions ([4, 64] instead of [16, 64]) is of another shape.",
        ),
        (lambda c: c["config"]["image"].update(depth=2), "image_encoder.transformer.blocks.2"),
        (lambda c: c["config"]["text"].update(depth=2), "text_encoder.transformer.blocks.1"),
    ],
)
def test_a_config_that_disagrees_with_the_weights(folder, change, says):
    path = folder()
    settings(path, change)
    refused(path, WEIGHTS, "does not fit its config.json", says)


def test_missing_and_extra_tensors_are_named(folder):
    path = folder()
    values = load_file(path / WEIGHTS)
    save_file({k: v for k, v in values.items() if k != "logit_scale"}, path / WEIGHTS)
    refused(path, WEIGHTS, "does not fit its config.json: logit_scale is only in the model.")
    extra = {f"adapter{i}": torch.ones(1) for i in range(5)}
    save_file({k: v for k, v in (values | extra).items() if k != "logit_scale"}, path / WEIGHTS)
    refused(path, "adapter0, adapter1, adapter2 and 2 more are only in the file; logit_scale is only in the model.")


# What mmlearn evaluate measures.


class Oracle(torch.nn.Module):
    """Knows which caption belongs to which picture, or mixes them up."""

    def __init__(self, config, run, samples, shift=0):
        super().__init__()
        self.config = config
        self.parameter = torch.nn.Parameter(torch.zeros(1))
        batch = run.collate()(samples)
        keys = list(dict.fromkeys(tuple(row.tolist()) for row in batch["tokens"]))
        self.text = {key: i for i, key in enumerate(keys)}
        self.image = {
            image.sum().item(): (self.text[tuple(row.tolist())] + shift) % len(keys)
            for image, row in zip(batch["image"], batch["tokens"])
        }

    def encode_image(self, image):
        rows = [self.image.get(one.sum().item(), 0) for one in image]
        return torch.eye(len(self.text))[rows]

    def encode_text(self, tokens, mask):
        return torch.eye(len(self.text))[[self.text[tuple(row.tolist())] for row in tokens]]


@pytest.mark.parametrize(("shift", "recall", "rank"), [(0, 1.0, 1.0), (1, 0.0, None)])
def test_an_oracle_is_measured_as_one(folders, shift, recall, rank):
    run = load_run(folders / "siglip")
    samples = fetch(load("scenes", "test", size=32), range(64))
    oracle = Oracle(run.system.config, run, samples, shift)
    rows = measure(Run("siglip", oracle, run.tokenizer, run.mean, run.std), "scenes", limit=64)
    texts = len(oracle.text)
    for name in (f"image to text R@1 of {texts}", "text to image R@1 of 64"):
        assert rows[name]["obtained"] == recall
    for k in (1, 5, 10):  # of k drawn, none twice
        assert rows[f"image to text R@{k} of {texts}"]["chance"] == pytest.approx(k / texts)
    assert rows["text to image median rank"]["chance"] == 32.5  # the middle of 1 to 64
    if rank:
        assert rows["image to text median rank"]["obtained"] == rank
        assert rows["alignment of pairs"]["obtained"] == 0
        assert rows["modality gap"]["obtained"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", PAIRED)
def test_what_is_measured_of_each_system(folders, name):
    """An untrained one is near chance; pointing is measured where patches and words can be compared."""
    rows = measure(load_run(folders / name), "scenes", limit=48)
    assert ("pointing accuracy" in rows) == (name in ("clip", "filip"))
    assert ("modality gap" in rows) == (name != "filip")
    assert sum("lost by hiding" in row for row in rows) == 4
    for direction in ("image to text", "text to image"):
        recalls = [row for label, row in rows.items() if label.startswith(f"{direction} R@")]
        assert [row["obtained"] for row in recalls] == sorted(row["obtained"] for row in recalls)
        assert [row["chance"] for row in recalls] == sorted(row["chance"] for row in recalls)
        assert recalls[0]["obtained"] < 0.25
    for label, row in rows.items():
        assert row["obtained"] == row["obtained"], label  # no NaN
    if "pointing accuracy" in rows:
        assert rows["pointing accuracy"]["chance"] < 0.3


def test_pictures_without_links_have_no_pointing(folders):
    rows = measure(load_run(folders / "clip"), "emoji", limit=20)
    assert next(iter(rows)) == "image to text R@1 of 20"
    assert not any("pointing" in label or "hiding" in label for label in rows)


def test_held_out_parts_exist_and_are_not_for_training():
    splits = {name: held_out(name) for name in data_sets(apart=False)}
    assert {splits.pop(name) for name in ("emoji", "emoji-openmoji")} == {"unseen-style"}
    assert splits.pop("talking-lips") == "unseen-speaker"
    assert set(splits.values()) == {"test"}
    assert all(len(load(name, held_out(name))) > 0 for name in splits)


def test_measuring_other_data(folders):
    run = load_run(folders / "clip")
    with pytest.raises(ValueError, match=r"no data set and no folder 'scene'; did you mean 'scenes'\?"):
        measure(run, "scene")
    with pytest.raises(ValueError, match=r"no split 'tst'; did you mean 'test'\?"):
        measure(run, "scenes", split="tst")
    with pytest.raises(ValueError, match="scenes has no option 'language'"):
        measure(run, "scenes", language="de")


def test_a_run_is_immutable(folders):
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_run(folders / "clip").name = "siglip"
