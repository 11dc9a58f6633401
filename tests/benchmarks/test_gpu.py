"""The bench on GPUs, gone through on a CPU at a small size: what it compares is equal, and what it counts is right."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).parent


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("gpu")


@pytest.fixture
def models(gpu):
    return importlib.import_module("twins")


NAMES = ("clip-b32", "clip-b16", "blip", "wav2vec2")


def bench(*options, **environment):
    command = [sys.executable, str(BENCH / "gpu.py"), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | environment
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)


def two_blocks(case):
    deeper = {name: 2 for name in ("depth", "text_depth") if name in case.size}
    return case.size | case.shrunk | deeper


def test_every_case_is_tested(models):
    assert tuple(models.CASES) == NAMES


@pytest.mark.parametrize("name", NAMES[1:])
def test_both_sides_have_equal_losses_and_gradients(models, name):
    """Gradients are put where the twin's weights are, to be compared under our names."""
    case = models.CASES[name]
    size = two_blocks(case)
    sides = models.build(case, size)
    ours, twin = sides["mmlearn"], sides[case.beside]
    with torch.no_grad():
        for parameter in twin.parameters():  # a class token of zeros has gradients of 1e8, which prove little
            parameter.add_(0.05 * torch.randn_like(parameter))
    ours.model.load_state_dict(case.our_state(twin.model))
    batch = case.given(size, 5)
    for side in (ours, twin):
        torch.manual_seed(3)
        side(batch).backward()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    expected = case.our_state(twin.model)
    moved = 0
    for key, parameter in ours.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected[key], atol=2e-5, rtol=1e-3)
            moved += parameter.grad.abs().max() > 1e-5
    assert moved > 20


def test_weights_that_are_not_equal_are_seen(models):
    case = models.CASES["clip-b16"]
    size = two_blocks(case)
    ours, twin = (models.Loss(make(size), loss) for make, loss in zip(case[5:9:2], case[6:9:2]))
    wrong = lambda twin: {  # noqa: E731
        name: value.flip(0) if name.endswith("blocks.0.attention.value.weight") else value
        for name, value in case.our_state(twin).items()
    }
    with pytest.raises(AssertionError):
        models.check(case._replace(our_state=wrong), size, ours, twin)
    models.check(case, size, ours, twin)
    wider = models.Loss(case.ours(size | dict(embedding=17)), case.our_loss)
    with pytest.raises(AssertionError, match=r"CLIP ViT-B/16: [\d,]+ parameters"):
        models.check(case, size, wider, twin)


@pytest.mark.parametrize(("name", "preset"), [("clip-b32", "ViT-B/32"), ("clip-b16", "ViT-B/16")])
def test_clip_has_the_published_shape(models, name, preset):
    from mmlearn.recipes.discovery import find_recipe

    with torch.device("meta"):
        model = models.CASES[name].ours(models.CASES[name].size)
    assert model.config == find_recipe("clip").config.preset(preset)


@pytest.mark.parametrize(("name", "system"), [("blip", "blip"), ("wav2vec2", "wav2vec2")])
def test_the_others_have_the_published_blocks(models, name, system):
    """Width, depth and heads of every part are the preset's; BLIP goes without momentum encoder and queue."""
    from mmlearn.recipes.discovery import find_recipe

    case, preset = models.CASES[name], find_recipe(system).config.preset("base")
    with torch.device("meta"):
        config = case.ours(case.size).config
    for part in ("image", "text") if name == "blip" else ("speech",):
        ours, published = getattr(config, part), getattr(preset, part)
        for field in ("width", "depth", "num_heads", "vocab_size", "image_size", "patch_size", "channels"):
            if hasattr(published, field):
                assert getattr(ours, field) == getattr(published, field), (part, field)


@pytest.mark.parametrize("name", NAMES[1:])
def test_flops_of_a_large_batch_follow_from_small_ones(gpu, models, name):
    from mmlearn.evaluation.cost import count_flops

    case = models.CASES[name]
    size, batch = two_blocks(case), 24
    for side in models.build(case, size).values():
        counted = gpu.flops(case, size, side, batch, torch.device("cpu"))
        assert counted == count_flops(lambda side=side: side(case.given(size, batch)).backward())


@pytest.mark.parametrize("name", ["blip", "wav2vec2"])
def test_a_case_runs_through_on_a_cpu(gpu, models, tmp_path, name):
    """In a process without the type checks of tests, as it is measured."""
    done = bench(name, "--shrink", "--batch", "4", "--work", str(tmp_path / "found.json"), CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    rows = gpu.rows(models.CASES[name], 4, 1, [found], None)
    assert [(row["implementation"], row["mode"]) for row in rows] == [
        (side, mode) for mode in ("eager", "compiled") for side in ("mmlearn", "Transformers")
    ]
    assert not [row["failed"] for row in rows if "failed" in row]
    assert all(row["samples_per_second"] > 0 and row["gflop_a_sample"] > 0 for row in rows)
    assert [("ratio" in row) for row in rows] == [True, False] * 2


def test_the_command_runs_through_on_a_cpu_with_one_and_two_processes():
    recorded = BENCH / "results" / "gpu.json"
    before = recorded.read_bytes() if recorded.is_file() else None
    done = bench("clip-b16", "--shrink", "--starts", "1")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("CLIP")]
    assert [line.split("card(s)")[0].split()[-1] for line in lines] == ["1"] * 4 + ["2"] * 4
    assert not [line for line in lines if "failed" in line]
    assert done.stdout.splitlines()[-1] == "Run through at a small size; nothing is recorded."
    assert (recorded.read_bytes() if recorded.is_file() else None) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "The bench on GPUs needs a GPU with bf16"),
        (("clip-b61", "--shrink"), "There is no case 'clip-b61'; did you mean 'clip-b16'"),
    ],
)
def test_what_cannot_run_is_told_in_one_line(options, said):
    done = bench(*options, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1


def start(ours, other, failed=None):
    """What a start finds of a system with 8 samples in a batch, by the seconds of a step."""
    seconds = {"eager": ours, "compiled": ours / 2}
    found = {"parameters": 10, "flops": 989.4e12, "loss": 1.0, "failed": {}, "peak": dict.fromkeys(seconds, 2**31)}
    own = found | {"seconds": seconds}
    twin = found | {"seconds": {"eager": other, "compiled": other}}
    if failed:
        twin = twin | {"failed": {"compiled": failed}, "seconds": {"eager": other}, "peak": {"eager": 2**30}}
    return {"mmlearn": own, "open_clip": twin}


def test_rows_are_medians_over_starts_and_ratios_of_equal_turns(gpu, models):
    case = models.CASES["clip-b16"]
    found = [start(2.0, 3.0), start(4.0, 8.0), start(3.0, 3.0)]
    rows = {(row["implementation"], row["mode"]): row for row in gpu.rows(case, 8, 2, found, "h100")}
    row = rows["mmlearn", "eager"]
    assert row["samples_per_second"] == pytest.approx(16 / 3, abs=0.05)
    assert row["of_each_start"] == [8.0, 4.0, 5.3]
    assert row["ratio"] == 1.5  # of 1.5, 2 and 1
    assert row["utilisation"] == pytest.approx(1 / 3, abs=1e-3)  # a second's worth of the peak in three
    assert (row["peak_gib"], row["cards"], row["batch"]) == (2.0, 2, 8)
    assert rows["mmlearn", "compiled"]["ratio"] == 3.0
    assert "ratio" not in rows["open_clip", "eager"]
    assert "utilisation" not in gpu.rows(case, 8, 2, found, None)[0]


def test_what_one_way_cannot_do_is_said_beside_the_others(gpu, models):
    rows = gpu.rows(models.CASES["clip-b16"], 8, 1, [start(2.0, 3.0, failed="Unsupported: x")], "h100")
    assert [row.get("failed") for row in rows] == [None, None, None, "Unsupported: x"]
    assert "ratio" not in rows[2]


def test_what_is_held_counts_shared_weights_once(gpu, models):
    """AdamW holds two numbers of each weight that learns, and a step count of each tensor."""
    case = models.CASES["blip"]
    twin, batch = models.build(case, two_blocks(case))["Transformers"], {"x": torch.zeros(3, dtype=torch.long)}
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-4, fused=True)
    sum(parameter.sum() for parameter in twin.parameters()).backward()
    optimizer.step()
    weights, tensors = models.trained(twin), len(list(twin.parameters()))
    rest = sum(buffer.nbytes for buffer in twin.buffers()) + 24
    assert gpu.held(twin, optimizer, batch, 1) == 3 * 4 * weights + 4 * tensors + rest
    assert gpu.held(twin, optimizer, batch, 2) == 4 * 4 * weights + 4 * tensors + rest


def test_batches_are_halved_until_they_fit(gpu, models, monkeypatch):
    tried = []

    def pretend(name, batch, cards, shrink):
        tried.append(batch)
        if batch > 128:
            raise gpu.OutOfMemory
        return start(2.0, 3.0)

    monkeypatch.setattr(gpu, "start", pretend)
    rows = gpu.run_case("clip-b16", 1, 3, False, "h100")
    assert tried == [512, 256, 128, 128, 128]
    assert {row["batch"] for row in rows} == {128}
    monkeypatch.setattr(gpu, "start", lambda *more: (_ for _ in ()).throw(gpu.OutOfMemory()))
    with pytest.raises(SystemExit, match="clip-b16 does not fit this card even in batches of 8"):
        gpu.run_case("clip-b16", 1, 3, False, "h100")


def test_a_record_keeps_what_was_not_measured_again(gpu):
    old = {"device": "x", "steps": [{"system": s, "cards": c, "n": 0} for s in "ab" for c in (1, 2)]}
    new = gpu.keep(old, [{"system": "a", "cards": 2, "n": 1}])
    assert [(row["system"], row["cards"], row["n"]) for row in new["steps"]] == [
        ("a", 1, 0), ("b", 1, 0), ("b", 2, 0), ("a", 2, 1),
    ]  # fmt: skip
    assert json.dumps(old).count('"n": 0') == 4
