"""A run's folder: what is saved is what is loaded, and a folder whose files do not belong together is refused."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmlearn.data.tokenizer import Tokenizer
from mmlearn.training.checkpoint import misfit, save_model
from mmlearn.training.runs import load_run, save_run

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(made, tmp_path):
    """A folder of a system, not trained."""

    def write(name="clip"):
        save_run(made(name), tmp_path / name, training={"data": "scenes"})
        save_model(made(name).system, tmp_path / name / WEIGHTS)
        return tmp_path / name

    return write


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


def test_what_is_written(folder, made):
    path = folder()
    assert sorted(file.name for file in path.iterdir()) == ["config.json", WEIGHTS, "tokenizer.json"]
    values = json.loads((path / "config.json").read_text())
    assert values["training"] == {"data": "scenes"}
    assert (values["system"], values["stage"], values["objectives"]) == ("clip", "", ["itc"])
    assert not load_run(path).system.training


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "tokenizer.json"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "pickle", "null", "deep"])
def test_damaged_files(folder, name, damage):
    path = folder()
    if damage == "gone":
        (path / name).unlink()
        refused(path, name, error=FileNotFoundError)
        return
    content = (path / name).read_bytes()
    damaged = {"empty": b"", "cut": content[: len(content) * 2 // 3], "pickle": pickle.dumps({"weight": 1})}
    (path / name).write_bytes((damaged | {"null": b"null", "deep": b"[" * 100_000})[damage])
    refused(path, name)


def test_no_folder(tmp_path):
    refused(tmp_path / "nothing", "give the output folder of a finished mmlearn train", error=FileNotFoundError)


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
    engine = Tokenizer.load(path).engine
    Tokenizer.train(["other words"], vocab_size=262, max_length=7).save(path)
    refused(path, "Tokens has vocab_size 262, and the model")
    Tokenizer(engine, 5).save(path)
    refused(path, "Tokens has max_length 5, and the model")


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("clip", lambda c: c.update(system="clpi"), "did you mean 'clip'?"),
        ("clip", lambda c: c.update(system=["clip"]), "There is no system"),
        ("clip", lambda c: c.update(system="toy.py"), "is a run of toy.py: say where that file is with --system"),
        ("clip", lambda c: c.pop("system"), "'system'"),
        ("clip", lambda c: c.update(stage="two"), "CLIP has no stage 'two'"),
        ("vilt", lambda c: c.update(objectives=["mlm", "vga"]), "There is no objective 'vga' here"),
        ("vilt", lambda c: c.update(objectives=3), "not iterable"),
        ("clip", lambda c: c["fields"].pop("image"), "'image'"),
        ("clip", lambda c: c["fields"]["image"].pop("mean"), "'mean'"),
        ("clip", lambda c: c["fields"]["image"].update(mean=[0.5]), "three numbers"),
        ("clip", lambda c: c["fields"]["image"].update(mean=[0.5, 0.5, float("nan")]), "three numbers"),
        ("clip", lambda c: c["fields"]["image"].update(std=[0.5, 0.5, 0.0]), "std above 0"),
        ("clip", lambda c: c["fields"]["image"].update(std="abc"), "damaged"),
        ("clip", lambda c: c["fields"]["image"].update(image_size=0), "image_size is at least 1, not 0"),
        ("clip", lambda c: c["fields"]["image"].update(image_size=None), "damaged"),
        ("clip", lambda c: c["fields"]["image"].update(image_size=64), "Image has image_size 64, and the model 32"),
        ("clip", lambda c: c.update(config=[]), "damaged"),
        ("clip", lambda c: c["config"].update(wings=2), "CLIPConfig has no field wings"),
        ("clip", lambda c: c["config"].pop("text"), "Tokens has"),
        ("clip", lambda c: c["config"]["text"].update(width="64"), "damaged"),
        ("clip", lambda c: c["config"]["text"].update(width=-64), "damaged"),
        ("clip", lambda c: c["config"]["text"].update(num_heads=5), "no multiple of num_heads 5"),
        ("clip", lambda c: c["config"].update(pooling="mean"), "pooling is 'class'"),
        ("clip", lambda c: c["config"]["image"].update(num_heads=-1), "num_heads is above 0, not -1"),
        ("clip", lambda c: c["config"]["text"].update(norm_epsilon="abc"), "norm_epsilon is a number, not 'abc'"),
        ("clip", lambda c: c["config"].update(end_token="abc"), "end_token is a whole number or null, not 'abc'"),
        ("clip", lambda c: c["config"].update(end_token=10**6), "Tokens has end_token 2, and the model 1000000"),
        ("clip", lambda c: c["config"]["text"].update(activation="abc"), "abc"),
        ("clip", lambda c: c["config"]["image"].update(dropout=7), "dropout"),
        ("ast", lambda c: c["fields"]["label"].update(names=["low", "low", "high"]), "names differ from each other"),
        ("ast", lambda c: c["fields"]["label"].update(names=["low"]), "Labels has num_classes 1, and the model 3"),
        ("ast", lambda c: c["fields"]["mel"].update(mean=float("nan")), "mean and std of log-mels are finite"),
        ("ast", lambda c: c["fields"]["mel"].update(std=0.0), "std above 0"),
        ("hubert", lambda c: c["fields"]["cluster"].update(centroids=[]), "Clusters has clusters 0, and the model 50"),
        ("hubert", lambda c: c["fields"]["cluster"]["centroids"][3].pop(), "rows of equally many finite numbers"),
        ("hubert", lambda c: c["fields"]["cluster"].update(centroids=[["a"]]), "damaged"),
        ("hubert", lambda c: c["fields"]["cluster"].update(centroids=[[float("inf")] * 39] * 50), "finite numbers"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_config_that_cannot_be(folder, name, change, says):
    path = folder(name)
    settings(path, change)
    refused(path, says, error=FileNotFoundError if "--system" in says else ValueError)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda c: c["config"].update(embedding_width=100),
            "text_projection.weight ([128, 64] instead of [100, 64]) are of another",
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


def _set(values, path, value):
    *way, last = path
    for name in way:
        values = values[name]
    values[last] = value


HUGE = {
    "clip": [("image", "depth"), ("text", "depth"), ("image", "width"), ("text", "width"), ("embedding_width",)],
    "bert": [("depth",), ("mlp_width",), ("vocab_size",)],
    "wav2vec2": [("speech", "depth")],
    "limoe": [("experts",)],
    "vq-vae": [("halvings",), ("width",)],
    "bart": [("pad_token",)],
}


@pytest.mark.parametrize("size", [1_000, 10**9])
@pytest.mark.parametrize(("name", "path"), [(name, path) for name, paths in HUGE.items() for path in paths])
def test_a_huge_model_from_a_stranger_is_refused_before_it_is_built(folder, monkeypatch, name, path, size):
    """No memory is taken, and no more blocks are built than the file could fill."""
    stranger, made = folder(name), []
    settings(stranger, lambda values: _set(values["config"], path, size))
    register = torch.nn.Module.register_parameter

    def counted(self, *given):
        made.append(None if given[1] is None else given[1].device.type)
        register(self, *given)

    monkeypatch.setattr(torch.nn.Module, "register_parameter", counted)
    refused(stranger, "")
    assert set(made) <= {"meta", None}
    assert len(made) < 3_000


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.complex64])
def test_weights_of_another_kind_are_refused(folder, kind):
    stranger = folder()
    weights = load_file(stranger / WEIGHTS)
    name = "text_projection.weight"
    save_file(weights | {name: weights[name].to(kind)}, stranger / WEIGHTS)
    refused(stranger, f"{name} ({kind} instead of torch.float32) is of another kind")


def test_half_precision_is_of_the_same_kind(folder):
    stranger = folder()
    save_file(
        {name: x.half() if x.is_floating_point() else x for name, x in load_file(stranger / WEIGHTS).items()},
        stranger / WEIGHTS,
    )
    load_run(stranger)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_deep_json_is_refused(folder, file):
    stranger = folder()
    (stranger / file).write_text('{"system":' + "[" * 10**5)
    refused(stranger, file)


def test_vast_tables_that_no_file_holds_are_refused():
    """They are made by building, and so would take their memory before anything is compared."""

    def build(rows):
        module = torch.nn.Linear(2, 2)
        module.register_buffer("table", torch.empty(rows, 1000), persistent=False)
        return module

    tensors = torch.nn.Linear(2, 2).state_dict()
    assert misfit(tensors, lambda: build(10)) == ""
    assert misfit(tensors, lambda: build(10**9)) == "the model keeps 1,000,000,000,000 numbers besides its weights"
