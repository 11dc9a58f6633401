"""Checkpoints: whole or not believed, and never of another system."""

import builtins
import json
import pickle
import random
import shutil
import warnings

import numpy as np
import pytest
import torch
from killable import Numbers, Plain, Restless, collate, restless, start
from safetensors.torch import load_file, save_file
from testing_tools import fit, refused
from torch import nn
from torch.amp import GradScaler

from mmlearn.training import checkpoint, distributed
from mmlearn.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint, save_model
from mmlearn.training.ema import MovingAverage
from mmlearn.training.optimizers import build_optimizers

FILES = ("model.safetensors", "optimizer.safetensors", "random-0.safetensors", "manifest.json")


@pytest.fixture
def run(tmp_path):
    """A run of three steps with a checkpoint at each, of which the last two are kept."""
    restless(tmp_path)
    return tmp_path


@pytest.fixture
def saved(run):
    return run / "checkpoints"


def new(build=Restless, optimizer="muon"):
    system = build()
    return system, build_optimizers(system, optimizer, learning_rate=1e-3, weight_decay=0.1)


def load(folder, *arguments, **options):
    """The step of what was loaded, and the warnings about what was passed over."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step = load_checkpoint(folder, *(arguments or new()), **options)
    return step, [str(warning.message) for warning in caught]


def test_the_scale_of_gradients_in_fp16_comes_back(tmp_path):
    scaler, other = (GradScaler("cpu", init_scale=scale, growth_interval=5) for scale in (2.0**9, 2.0**16))
    scaler.scale(torch.ones(()))
    scaler.update(2.0**7)
    save_checkpoint(tmp_path, 1, *new(), scaler=scaler)
    load_checkpoint(tmp_path, *new(), scaler=other)
    assert other.state_dict() == scaler.state_dict()
    assert other.get_scale() == 2.0**7
    load_checkpoint(tmp_path, *new())  # which does without


def test_training_keeps_the_scale_and_goes_on_with_it(tmp_path, monkeypatch):
    """On a CPU there is no fp16, but a scaler works there."""
    build, scalers = distributed.new_accelerator, []

    def scaling(*arguments):
        accelerator = build(*arguments)
        accelerator.scaler = GradScaler("cpu", init_scale=2.0**9 if not scalers else 2.0**16)
        scalers.append(accelerator.scaler)
        return accelerator

    monkeypatch.setattr(distributed, "new_accelerator", scaling)
    options = dict(batch_size=4, output=tmp_path, checkpoint_every=1, progress=False)
    fit(Plain(), Numbers(), collate, steps=2, **options)
    manifest = json.loads((tmp_path / "checkpoints" / "step-00000002" / "manifest.json").read_text())
    assert manifest["scaler"]["scale"] == 2.0**9
    fit(Plain(), Numbers(), collate, steps=3, resume=True, **options)
    assert scalers[1].get_scale() == 2.0**9


@pytest.mark.usefixtures("unchecked")  # the checker draws from Python's generator
def test_everything_comes_back(tmp_path):
    """Parameters, buffers, both optimisers, and the four generators."""
    system, optimizers = new()
    for step in range(3):
        sum(system.loss(collate([Numbers()[i] for i in range(step, step + 4)])).values()).backward()
        for optimizer in optimizers:
            optimizer.step()
        system.after_step()
    while random.getstate()[2] is None:
        random.gauss(0, 1)  # Python draws pairs, and keeps the other one
    np.random.standard_normal()
    save_checkpoint(tmp_path, 3, system, optimizers)
    drawn = [random.gauss(0, 1), random.random(), np.random.standard_normal(3).tolist(), torch.rand(3).tolist()]

    other, others = new()
    with torch.no_grad():
        for value in other.state_dict().values():
            value.add_(1)
    start(5)
    torch.manual_seed(5)
    assert load(tmp_path, other, others) == (3, [])
    assert drawn == [random.gauss(0, 1), random.random(), np.random.standard_normal(3).tolist(), torch.rand(3).tolist()]
    for name, value in system.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
        assert other.state_dict()[name].dtype == value.dtype
    for one, two in zip(optimizers, others, strict=True):
        one, two = one.state_dict(), two.state_dict()
        assert json.dumps(one["param_groups"]) == json.dumps(two["param_groups"])
        assert one["state"].keys() == two["state"].keys()
        for index, values in one["state"].items():
            assert values.keys() == two["state"][index].keys()
            for name, value in values.items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(two["state"][index][name])), name


def test_the_newest_two_are_kept(saved):
    assert [path.name for path in checkpoints(saved)] == ["step-00000003", "step-00000002"]
    assert sorted(path.name for path in saved.iterdir()) == ["step-00000002", "step-00000003"]


def test_nothing_is_pickled(run):
    """Every file is safetensors or JSON, and reading them needs no unpickling."""
    files = [path for path in run.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json", ".jsonl"}
    for path in files:
        if path.suffix == ".safetensors":
            load_file(path)
        else:
            [json.loads(line) for line in path.read_text().splitlines() if path.suffix == ".jsonl"]


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_anywhere(saved, name):
    """The newest is passed over, with a sentence that names it; the one before is used."""
    path = saved / "step-00000003" / name
    whole = path.read_bytes()
    positions = range(0, len(whole), 7) if name == "manifest.json" else (0, 8, len(whole) // 3, len(whole) - 1)
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 0x41 if damaged[position] in b" \n" else 0x40  # white space may stand for white space
        path.write_bytes(damaged)
        step, passed = load(saved)
        assert step == 2
        (message,) = passed
        assert str(saved / "step-00000003") in message
        assert name == "manifest.json" or f"{name} is damaged" in message


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["empty", "cut", "gone", "folder", "pickle", "swapped"])
def test_damaged_files(saved, name, damage):
    path = saved / "step-00000003" / name
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "swapped":
        shutil.copyfile(saved / "step-00000002" / name, path)
    elif damage != "gone":
        path.write_bytes({"empty": b"", "cut": content[:-1], "pickle": pickle.dumps({"step": 3})}[damage])
    step, (message,) = load(saved)
    assert step == 2
    assert "Passing over" in message
    assert str(saved / "step-00000003") in message


def test_swapped_files_within_a_checkpoint(saved):
    folder = saved / "step-00000003"
    (folder / "model.safetensors").rename(folder / "other")
    (folder / "optimizer.safetensors").rename(folder / "model.safetensors")
    (folder / "other").rename(folder / "optimizer.safetensors")
    step, (message,) = load(saved)
    assert (step, "model.safetensors is damaged" in message) == (2, True)


def test_swapped_folders(saved):
    """A checkpoint under another's name would go on at the wrong step."""
    one, two = saved / "step-00000002", saved / "step-00000003"
    one.rename(saved / "x")
    two.rename(one)
    (saved / "x").rename(two)
    with pytest.raises(FileNotFoundError, match="holds no whole checkpoint"):
        load(saved)


@pytest.mark.parametrize(
    "content",
    [
        "null",
        "[]",
        "3",
        "{}",
        '{"step": 3}',
        '{"step": "3", "world": 1, "files": {}, "optimizers": []}',
        '{"step": 3, "world": 1, "files": {}, "optimizers": []}',
        '{"step": 3, "world": 1000000000, "files": {}, "optimizers": []}',
        '{"step": 3, "world": true, "files": {"model.safetensors": "0"}, "optimizers": []}',
        '{"step": 3, "world": "1", "files": {}, "optimizers": []}',
        '{"step": 3, "world": 1, "files": [], "optimizers": []}',
        '{"step": 3, "world": 1, "files": {"model.safetensors": 5}, "optimizers": []}',
        '{"step": 3, "world": 1, "files": {"../../model.safetensors": "0"}, "optimizers": []}',
        "[" * 100_000,
        "\udcff",
    ],
)
def test_hostile_manifests(saved, content):
    (saved / "step-00000003" / "manifest.json").write_bytes(content.encode(errors="surrogateescape"))
    step, (message,) = load(saved)
    assert step == 2
    assert "Passing over" in message


def test_none_is_whole(saved):
    for path in checkpoints(saved):
        (path / "model.safetensors").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=f"{saved} holds no whole checkpoint to go on from"):
        load(saved)


def test_nothing_to_go_on_from(tmp_path):
    (tmp_path / "step-12").mkdir()
    (tmp_path / "step-00000001.old").mkdir()
    (tmp_path / ".writing-00000004").mkdir()
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FileNotFoundError, match="start without resuming"):
            load(folder)


class Wider(Restless):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 4)


@pytest.mark.parametrize("build", [Plain, Wider])
def test_a_checkpoint_of_another_system(saved, build):
    """It is refused, and not passed over: an older one would be of that system as well."""
    with pytest.raises(ValueError, match="step-00000003 belongs to another model: ") as caught:
        load(saved, *new(build))
    assert "\n" not in str(caught.value)
    told = str(caught.value).partition("model: ")[2]
    assert len(told) < 200
    assert ("only in the file" in told) == (build is Plain)
    assert ("head.weight ([3, 8] instead of [4, 8])" in told) == (build is Wider)


def test_a_checkpoint_with_another_optimiser(saved):
    refused("step-00000003 was written with other optimisers: it has 2 of them", load, saved, *new(optimizer="adamw"))


@pytest.mark.usefixtures("unchecked")  # the checker draws from Python's generator
def test_a_checkpoint_of_another_number_of_processes(saved):
    """The weights come back everywhere, and the first process says what does not: a second one's random numbers."""
    alone, drawn, told = {}, {}, {}
    for rank, world in ((0, 1), (0, 2), (1, 2), (2, 3)):
        system, optimizers = new()
        step, told[rank, world] = load(saved, system, optimizers, rank=rank, world=world)
        drawn[rank, world] = torch.rand(3).tolist()
        alone = alone or system.state_dict()
        assert step == 3
        assert all(torch.equal(value, alone[name]) for name, value in system.state_dict().items())
    (message,) = told[0, 2]
    assert "was written by 1 process, and this run has 2: what is drawn at random, such as dropout" in message
    assert told[0, 1] == told[1, 2] == told[2, 3] == []
    assert drawn[0, 1] == drawn[0, 2]
    assert len({tuple(numbers) for numbers in drawn.values()}) == 3


@pytest.mark.usefixtures("unchecked")
def test_what_a_new_process_draws_depends_on_the_step(saved):
    drawn = []
    for path in checkpoints(saved):
        load(saved, *new(), rank=1, world=2)
        drawn.append(torch.rand(3).tolist())
        shutil.rmtree(path)
    assert drawn[0] != drawn[1]


def test_an_average_of_other_weights(tmp_path):
    system, optimizers = new()
    save_checkpoint(tmp_path, 1, system, optimizers, ema=MovingAverage(system, 0.5))
    other = new()[0]
    other.head.requires_grad_(False)
    refused(
        "step-00000001 has an average of other weights: .*head", load, tmp_path, *new(), ema=MovingAverage(other, 0.5)
    )


def test_failing_to_write_leaves_nothing(saved, monkeypatch):
    """No space left, at each file in turn: the error comes through, and the folder is as it was."""
    system, optimizers = new()
    before = sorted(saved.rglob("*"))
    real, left = checkpoint._write, 0

    def write(path, tensors):
        nonlocal left
        left -= 1
        if left < 0:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device", str(path))
        real(path, tensors)

    monkeypatch.setattr(checkpoint, "_write", write)
    for whole in (0, 1, 2):
        left = whole
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(saved, 4, system, optimizers)
        assert sorted(saved.rglob("*")) == before
    left = 0
    with pytest.raises(OSError, match="No space left"):
        save_model(system, saved / "model.safetensors")
    assert sorted(saved.rglob("*")) == before


def test_a_model_is_replaced_at_once(tmp_path, monkeypatch):
    """Whatever fails, the file that was there is still whole."""
    path = tmp_path / "model.safetensors"
    save_model(Plain(), path)
    whole = path.read_bytes()
    system = Plain()
    nn.init.zeros_(system.head.weight)
    monkeypatch.setattr(checkpoint.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_model(system, path)
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    save_model(system, path)
    assert not load_file(path)["head.weight"].any()


def test_files_can_be_read_by_others(run):
    """As any file that a program writes, and not only by whom trained."""
    modes = {path.stat().st_mode & 0o777 for path in run.rglob("*") if path.is_file()}
    plain = run / "plain"
    plain.touch()
    assert modes == {plain.stat().st_mode & 0o777}


def test_tensors_that_share_memory_and_strided_ones(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 3)
            self.head = nn.Linear(3, 5, bias=False)
            self.head.weight = self.table.weight
            self.register_buffer("turned", torch.arange(6.0).view(2, 3).T)

    save_model(Tied(), tmp_path / "model.safetensors")
    values = load_file(tmp_path / "model.safetensors")
    assert torch.equal(values["head.weight"], values["table.weight"])
    assert values["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_unpickling_is_never_used(saved, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(builtins, "eval", refuse)
    assert load(saved) == (3, [])


def test_a_hostile_tensor_file_with_its_right_digest(saved):
    """Whoever can write the manifest can make a bad file look whole; what is in it is still only tensors."""
    folder = saved / "step-00000003"
    save_file({"0.0.step": torch.zeros(1)}, folder / "model.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["model.safetensors"] = checkpoint._digest(folder / "model.safetensors")
    del manifest["checksum"]
    manifest["checksum"] = checkpoint._checksum(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    refused("belongs to another model", load, saved)
