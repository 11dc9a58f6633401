"""However processes share the work, they learn what one process learns; and what cannot be shared is refused."""

import shutil

import pytest
import sharded_fit
import torch
from killable import Numbers, Plain, collate, sha256
from safetensors.torch import load_file
from sharded_fit import CASES, averages, cases, train
from testing_tools import fit, free_port, refused

from mmlearn.data.batches import Batches
from mmlearn.training import distributed
from mmlearn.training.checkpoint import checkpoints
from mmlearn.training.ema import MovingAverage


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process learns: weights, metrics and averages by case; and its folder."""
    folder, found = tmp_path_factory.mktemp("alone"), {}
    for case, same in (("data parallel", 4), ("sharded, accumulated", 1), ("packed", 1), ("uneven", 1)):
        weights, history = train(case, folder / case, shard=False)
        found |= dict.fromkeys(list(CASES)[:same] if same > 1 else [case], (weights, history, averages(folder / case)))
    return found, folder


def close(found, expected, where):
    assert found.keys() == expected.keys(), where
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, atol=1e-9, rtol=1e-9, msg=lambda text, name=name: f"{where}, {name}: {text}"
        )


@pytest.fixture(scope="module", params=[2, 4])
def processes(request, alone, tmp_path_factory):
    """How many there are, where they wrote, and what each found."""
    world, folder = request.param, tmp_path_factory.mktemp("processes")
    shutil.copytree(alone[1] / "data parallel", folder / "of one")
    for path in checkpoints(folder / "of one" / "checkpoints")[:1]:
        shutil.rmtree(path)  # so that the last steps are taken again
    torch.multiprocessing.spawn(sharded_fit.process, (world, free_port(), folder), nprocs=world)
    return world, folder, [torch.load(folder / f"{rank}.pt") for rank in range(world)]


def test_processes_learn_what_one_learns(processes, alone):
    """Weights, averages, losses and the norm of gradients after four steps in float64, to 1e-9, in every process."""
    world, folder, found = processes
    for case in cases(world):
        weights, history, averaged = alone[0][case]
        for rank in range(world):
            own, rows = found[rank][case]
            close(own, weights, f"{case}, process {rank} of {world}")
            for row, expected in zip(rows, history, strict=True):
                assert row == pytest.approx(expected, abs=1e-9), case
        close(averages(folder / case), averaged, case)
        close(load_file(folder / case / "model.safetensors"), weights, case)


def test_parts_are_resumed_by_as_many_bit_for_bit_and_by_others_rightly(processes, alone):
    world, folder, _ = processes
    if world != 2:
        return
    for name in ("model.safetensors", "model-ema.safetensors"):
        assert sha256(folder / "resumed" / name) == sha256(folder / "sharded" / name)
        assert sha256(folder / "resumed packed" / name) == sha256(folder / "packed" / name)
    weights, _, averaged = alone[0]["sharded"]
    close(load_file(folder / "of one" / "model.safetensors"), weights, "from one process to two")
    close(averages(folder / "of one"), averaged, "from one process to two")
    shutil.rmtree(checkpoints(folder / "sharded" / "checkpoints")[0])
    with pytest.warns(UserWarning, match="was written by 2 processes, and this run has 1: what is drawn at random"):
        close(train("sharded", folder / "sharded", shard=False, resume=True)[0], weights, "from two processes to one")
    close(averages(folder / "sharded"), averaged, "from two processes to one")


def test_sharded_systems_keep_the_buffers_of_data_parallel_ones(processes):
    world, _, found = processes
    if world != 2:
        return
    for rank in range(2):
        for name, ways in found[rank]["both ways"].items():
            close(*ways, f"{name}, process {rank}")


def test_what_processes_cannot_share_is_refused_by_each_in_one_line(processes):
    world, _, found = processes
    if world != 2:
        return
    for rank in range(2):
        told = found[rank]["refused"]
        assert told["settings"].startswith("Process 1 has batch_size 8, and process 0 has 4; start all of them with")
        assert told["config"].startswith("Process 1 has config.text.num_heads 2, and process 0 has 4; start all of")
        assert told["samples"].startswith("Process 1 has samples [23], and process 0 has [24]; start all of them with")
        assert told["more"] == "A batch of 1 does not divide among 2 processes; take a multiple of 2."
        assert told["turns"].startswith("Sharding trains one loss, and this stage takes 2 turns a step")
        assert told["fp16"].startswith("Sharding does not scale gradients of 'fp16'; take 'bf16' or 'no'")
        assert told["muon"].startswith("Muon moves whole matrices")


def test_one_process_has_nothing_to_shard():
    refused("Sharding needs several processes", fit, Plain(), Numbers(), collate, steps=1, batch_size=4, shard=True)


def test_more_processes_than_samples():
    refused("3 samples are too few for 4 processes; start at most 3", Batches, Numbers(3), collate, 3, world=4)


def test_a_precision_that_the_device_lacks(monkeypatch):
    refused("precision 'fp16' needs a GPU, and there is none; take 'bf16' or 'no'", distributed.check_precision, "fp16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    refused("Tesla T4 has no 'bf16'; take 'fp16' or 'no'", distributed.check_precision, "bf16")
    distributed.check_precision("fp16")


# The average of weights.


def test_the_average_is_the_one_written_out(tmp_path):
    """Of the weights after each step, with a decay that rises; buffers and what is frozen are the model's."""
    system, seen = Plain().double(), []
    system.head.bias.requires_grad_(False)
    start = {name: value.clone() for name, value in system.state_dict().items()}
    system.after_step = lambda: seen.append({name: value.clone() for name, value in system.state_dict().items()})
    options = dict(steps=12, batch_size=4, warmup=0, learning_rate=0.05, progress=False)
    fit(system, Numbers(dtype=torch.float64), collate, ema=0.5, output=tmp_path, **options)
    average = start
    for t, weights in enumerate(seen, 1):
        decay = min(0.5, (1 + t) / (10 + t))
        average = {name: decay * average[name] + (1 - decay) * value for name, value in weights.items()}
    close(averages(tmp_path), average, "by hand")
    assert torch.equal(averages(tmp_path)["head.bias"], start["head.bias"])
    assert not torch.equal(averages(tmp_path)["head.weight"], system.head.weight)


def test_an_average_is_resumed_bit_for_bit_and_asked_for_where_there_is_one(tmp_path):
    options = dict(steps=4, batch_size=4, warmup=0, checkpoint_every=2, progress=False)
    fit(Plain(), Numbers(), collate, ema=0.9, output=tmp_path / "whole", **options)
    with pytest.raises(sharded_fit.Stop):
        fit(Plain(), Numbers(), collate, ema=0.9, output=tmp_path / "again", on_step=sharded_fit.stop, **options)
    fit(Plain(), Numbers(), collate, ema=0.9, output=tmp_path / "again", resume=True, **options)
    assert sha256(tmp_path / "whole" / "model-ema.safetensors") == sha256(tmp_path / "again" / "model-ema.safetensors")
    fit(Plain(), Numbers(), collate, output=tmp_path / "without", **options)
    more = dict(options, steps=6, output=tmp_path / "without", resume=True)
    refused(
        "holds no average of weights; leave ema out, or start anew", fit, Plain(), Numbers(), collate, ema=0.9, **more
    )
    refused("holds an average of weights; give ema as before", fit, Plain(), Numbers(), collate,
            **dict(more, output=tmp_path / "again"))  # fmt: skip
    newest = checkpoints(tmp_path / "again" / "checkpoints")[0] / "ema.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="ema.safetensors is damaged"):
        fit(Plain(), Numbers(), collate, ema=0.9, output=tmp_path / "again", resume=True, **options)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1, 99.0])
def test_a_decay_that_cannot_be(decay):
    refused("between 0 and 1, such as 0.9999; got", MovingAverage, Plain(), decay)
    refused("between 0 and 1", fit, Plain(), Numbers(), collate, steps=1, batch_size=4, ema=decay)
