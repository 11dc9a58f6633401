"""The loop against one written out by hand, and what it does when things go wrong."""

import inspect
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import fit_in_processes
import killable
import pytest
import torch
from killable import Numbers, Plain, Restless, collate
from safetensors.torch import load_file
from testing_tools import fit, refused
from torch import nn
from torch.utils.data import Subset

from mmlearn.data.batches import Batches
from mmlearn.data.readers.files import Files
from mmlearn.training import loader, loop
from mmlearn.training.checkpoint import checkpoints
from mmlearn.training.optimizers import schedule

QUIET = dict(progress=False, batch_size=4, warmup=0)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same(one, two, tolerance=0.0):
    for (name, a), (other, b) in zip(one.state_dict().items(), two.state_dict().items(), strict=True):
        assert name == other
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance, msg=lambda text, name=name: f"{name}: {text}")


def by_hand(system, steps, *, batch_size=4, rate=1e-3, warmup=0, decay="linear", max_norm=1.0):
    """The same in plain PyTorch."""
    matrices = [p for p in system.parameters() if p.ndim > 1]
    vectors = [p for p in system.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    batches, history = Batches(Numbers(dtype=next(system.parameters()).dtype), collate, batch_size), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule(step, steps, warmup=warmup, decay=decay)
        loss = sum(system.loss(batches[step]).values())
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(system.parameters(), max_norm)
        optimizer.step()
        history.append((loss.item(), norm.item()))
    return history


@pytest.mark.parametrize("max_norm", [1.0, 0.05])
def test_it_is_the_loop_one_would_write(max_norm):
    """Loss, gradient norm, rate and weights of 12 steps in float64, over more than one epoch of 6 batches."""
    ours, plain = Plain().double(), Plain().double()
    options = dict(warmup=3, decay="cosine", max_norm=max_norm)
    history = fit(ours, Numbers(dtype=torch.float64), collate, steps=12, **QUIET | options)
    expected = by_hand(plain, 12, **options)
    assert [row["step"] for row in history] == list(range(1, 13))
    for row, (loss, norm) in zip(history, expected, strict=True):
        assert row["loss"] == row["squares"] == pytest.approx(loss, abs=1e-12)
        assert row["gradient_norm"] == pytest.approx(norm, abs=1e-9)
        assert row["learning_rate"] == 1e-3 * schedule(row["step"] - 1, 12, warmup=3, decay="cosine")
    same(ours, plain, 1e-9)
    assert not ours.training


def test_named_losses_are_summed():
    row = fit(Restless(), Numbers(), collate, steps=1, **QUIET)[0]
    assert row["loss"] == pytest.approx(row["squares"] + row["queue"], rel=1e-6)
    assert list(row) == ["step", "loss", "squares", "queue", "gradient_norm", "learning_rate"]


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulation_equals_a_larger_batch(accumulate):
    """Also right after a run that accumulated another number, which Accelerate would remember."""
    small, large = Plain().double(), Plain().double()
    data = Numbers(dtype=torch.float64)
    options = QUIET | dict(steps=4, learning_rate=0.01, max_norm=0.5)
    one = fit(small, data, collate, **options, accumulate=accumulate)
    two = fit(large, data, collate, **options | dict(batch_size=4 * accumulate))
    same(small, large, 1e-10)
    for row, other in zip(one, two, strict=True):
        assert row == pytest.approx(other, abs=1e-10)
    differs = fit(Plain().double(), data, collate, **options)
    assert differs[0]["loss"] != pytest.approx(two[0]["loss"], abs=1e-3)


def test_a_batch_of_one():
    history = fit(Plain(), Numbers(), collate, steps=3, **QUIET | dict(batch_size=1))
    assert all(math.isfinite(row["loss"]) for row in history)


def test_a_batch_of_all():
    fit(Plain(), Numbers(), collate, steps=2, **QUIET | dict(batch_size=24))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(batch_size=0), "A batch of 0 cannot be drawn from 24 samples"),
        (dict(batch_size=-4), "A batch of -4"),
        (dict(batch_size=25), "A batch of 25 cannot be drawn from 24 samples; lower the batch size"),
        (dict(steps=0), "at least 1"),
        (dict(accumulate=0), "at least 1"),
        (dict(checkpoint_every=0), "at least 1"),
        (dict(log_every=0), "at least 1"),
        (dict(warmup=-1), "warmup is at least 0"),
        (dict(precision="bf61"), "precision is 'no', 'bf16' or 'fp16', got 'bf61'"),
        (dict(optimizer="adam"), "no optimiser 'adam'"),
        (dict(decay="cosin"), "no decay 'cosin'"),
        (dict(learning_rate=float("nan")), "learning rate"),
        (dict(learning_rate=-1.0), "learning rate"),
    ],
)
def test_settings_that_cannot_be(tmp_path, changes, says):
    """They are refused before anything is written."""
    refused(says, fit, Plain(), Numbers(), collate, output=tmp_path / "run", **dict(steps=2) | QUIET | changes)
    assert not list(tmp_path.iterdir())


def test_nothing_to_resume(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no whole checkpoint"):
        fit(Plain(), Numbers(), collate, steps=2, output=tmp_path / "run", resume=True, tensorboard=True, **QUIET)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_a_run(tmp_path):
    killable.restless(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(ValueError, match="checkpoints holds a run already; resume it, or give another folder"):
        fit(Restless(), Numbers(), collate, steps=2, output=tmp_path, **QUIET)
    assert (tmp_path / "metrics.jsonl").read_text() == before
    assert len(checkpoints(tmp_path / "checkpoints")) == 2


def test_tensorboard_needs_a_folder():
    refused("tensorboard needs an output folder", fit, Plain(), Numbers(), collate, steps=2, tensorboard=True, **QUIET)


# Numbers that are not finite.


class Poisoned(Plain):
    """From step ``at`` on, the loss or only its gradient is ``value``."""

    def __init__(self, at, value, gradient_only=False):
        super().__init__()
        self.left, self.value, self.gradient_only = at, value, gradient_only

    def loss(self, batch):
        self.left -= 1
        losses = super().loss(batch)
        if self.left > 0:
            return losses
        if self.gradient_only:
            zero = self.head.bias.sum() * 0
            return losses | {"root": zero.sqrt()}  # the slope of a root at zero is infinite, and 0 · ∞ is NaN
        return losses | {"poison": torch.tensor(self.value)}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite(tmp_path, value):
    """Training stops at that step, and the last good checkpoint stays and can be gone on from."""
    options = QUIET | dict(steps=9, checkpoint_every=2, output=tmp_path)
    with pytest.raises(FloatingPointError, match=rf"The loss is {value} at step 6\. Lower the learning rate"):
        fit(Poisoned(6, value), Numbers(), collate, **options)
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-00000004", "step-00000002"]
    assert [row["step"] for row in lines(tmp_path)] == [1, 2, 3, 4, 5]
    assert not (tmp_path / "model.safetensors").exists()
    healed, whole = Plain(), Plain()
    fit(healed, Numbers(), collate, **options, resume=True)
    fit(whole, Numbers(), collate, **options | dict(output=None))
    same(healed, whole)
    assert [row["step"] for row in lines(tmp_path)] == list(range(1, 10))


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_gradient_that_is_not_finite(tmp_path, log_every):
    """The loss of that step is still finite, but the weights are lost, so its checkpoint must not be kept."""
    options = QUIET | dict(steps=9, checkpoint_every=2, log_every=log_every, output=tmp_path)
    with pytest.raises(FloatingPointError, match=r"The gradient norm is nan at step 4"):
        fit(Poisoned(4, 0.0, True), Numbers(), collate, **options)
    (kept,) = checkpoints(tmp_path / "checkpoints")
    assert kept.name == "step-00000002"
    assert all(value.isfinite().all() for value in load_file(kept / "model.safetensors").values())


def test_numbers_are_fetched_every_so_many_steps(tmp_path):
    """A run is the same; what is not finite stops it when it is fetched, and is told of its own step."""
    runs = []
    for log_every in (1, 4, 100):
        asked, model = [], Plain()
        loss, model.loss = model.loss, lambda batch: asked.append("step") or loss(batch)  # noqa: B023
        note = lambda step, _: asked.append(step)  # noqa: B023, E731
        history = fit(model, Numbers(), collate, steps=6, log_every=log_every, on_step=note, **QUIET)
        runs.append((history, asked))
    assert runs[0][0] == runs[1][0] == runs[2][0]
    assert [row["step"] for row in runs[0][0]] == [1, 2, 3, 4, 5, 6]
    assert runs[0][1] == ["step", 1, "step", 2, "step", 3, "step", 4, "step", 5, "step", 6]
    assert runs[1][1] == [*["step"] * 4, 1, 2, 3, 4, *["step"] * 2, 5, 6]
    assert runs[2][1] == [*["step"] * 6, 1, 2, 3, 4, 5, 6]
    poisoned = Poisoned(6, float("nan"))
    with pytest.raises(FloatingPointError, match="The loss is nan at step 6"):
        fit(poisoned, Numbers(), collate, steps=20, log_every=8, output=tmp_path, **QUIET)
    assert poisoned.left == 6 - 8  # it stopped at the eighth step
    assert [row["step"] for row in lines(tmp_path)] == [1, 2, 3, 4, 5]


# What is written.


@pytest.mark.usefixtures("unchecked")  # the checker draws from Python's generator
def test_one_line_a_step_also_after_resuming(tmp_path):
    class Stop(Exception):
        pass

    def stop(step, metrics):
        if step == 5:
            raise Stop

    options = QUIET | dict(steps=8, checkpoint_every=3, output=tmp_path)
    with pytest.raises(Stop):
        fit(Restless(), Numbers(), collate, **options, on_step=stop)
    assert [row["step"] for row in lines(tmp_path)] == [1, 2, 3, 4, 5]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # torn by a kill
    seen = []
    history = fit(Restless(), Numbers(), collate, **options, resume=True, on_step=lambda s, m: seen.append((s, m)))
    assert [row["step"] for row in lines(tmp_path)] == list(range(1, 9))
    assert lines(tmp_path)[3:] == history == [metrics for _, metrics in seen]
    assert [step for step, _ in seen] == [4, 5, 6, 7, 8]


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    killable.restless(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    killable.restless(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_model_and_last_checkpoint_are_the_system(tmp_path):
    system = Restless()
    fit(system, Numbers(), collate, steps=3, output=tmp_path / "deep" / "run", **QUIET)
    for path in tmp_path.rglob("model.safetensors"):
        for name, value in load_file(path).items():
            assert torch.equal(value, system.state_dict()[name]), name
    assert len(list(tmp_path.rglob("model.safetensors"))) == 2


def test_without_output_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(Plain(), Numbers(), collate, steps=2, **QUIET)
    assert not list(tmp_path.iterdir())


def test_tensorboard(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    options = QUIET | dict(steps=4, checkpoint_every=2, output=tmp_path, tensorboard=True)

    def stop(step, metrics):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(Restless(), Numbers(), collate, **options, on_step=stop)
    fit(Restless(), Numbers(), collate, **options, resume=True)
    board = events.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    for name in ("loss", "squares", "queue", "gradient_norm", "learning_rate"):
        points = board.Scalars(name)
        assert [point.step for point in points] == [1, 2, 3, 4]  # step 3 of the run that was stopped is gone
        assert [point.value for point in points] == pytest.approx([row[name] for row in lines(tmp_path)], rel=1e-6)


def test_progress_goes_to_stderr(capfd):
    fit(Plain(), Numbers(), collate, steps=2, **QUIET | dict(progress=True))
    out, err = capfd.readouterr()
    assert out == ""
    assert "2/2" in err
    assert "loss=" in err


# Ways to train.


def test_bf16_multiplies_in_bf16_and_keeps_weights_in_float32():
    seen = []

    class Watched(Plain):
        def loss(self, batch):
            seen.append(self.head(torch.zeros(1, 8)).dtype)
            return super().loss(batch)

    half, full = Watched(), Plain()
    fit(half, Numbers(), collate, steps=5, precision="bf16", **QUIET)
    assert set(seen) == {torch.bfloat16}
    assert {value.dtype for value in half.state_dict().values()} == {torch.float32}
    fit(full, Numbers(), collate, steps=5, **QUIET)  # Accelerate would keep the first precision for all
    with pytest.raises(AssertionError):
        same(half, full)
    same(half, full, 0.01)


@pytest.mark.usefixtures("unchecked")  # the checker draws from Python's generator
def test_reading_in_other_processes_changes_nothing():
    here, there = Restless(), Restless()
    for system, workers in ((here, 0), (there, 2)):
        killable.start()
        fit(system, Numbers(), collate, steps=3, workers=workers, **QUIET)
    same(here, there)


@pytest.mark.parametrize(("gpu", "workers"), [(True, 4), (True, 0), (False, 2)])
def test_for_a_gpu_batches_are_pinned_and_prepared_ahead(gpu, workers, monkeypatch):
    asked = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(loader, "DataLoader", lambda data, **options: asked.update(options) or [data[0]])
    next(loader.load_batches(Batches(Numbers(), collate, 4), range(1), workers, 0))
    assert asked["pin_memory"] == gpu
    assert asked["prefetch_factor"] == (4 if workers else None)
    assert asked["num_workers"] == workers


class Noting(Files):
    """Numbers, of which every third is to be known of."""

    def __init__(self):
        super().__init__()
        self.numbers = Numbers()
        self.note(["0: resampled."])  # by its header

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, index):
        if index % 3 == 0:
            self.note([f"{index}: {'resampled; ' if index == 0 else ''}silent."])
        return self.numbers[index]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.usefixtures("unchecked")
def test_what_the_data_notes_in_other_processes_is_gathered(workers):
    data = Noting()
    assert data.new_notes() == ["0: resampled."]
    batches = Batches(data.numbers, collate, 4)
    read = {index for step in range(9) for index in batches.indices(step)}  # more than an epoch
    fit(Plain(), data, collate, steps=9, workers=workers, **QUIET)
    expected = {f"{index}: {'resampled; ' if index == 0 else ''}silent." for index in read if index % 3 == 0}
    assert set(data.notes) == set(data.new_notes()) == expected
    assert len(data.notes) == len(expected) > 3
    assert data.new_notes() == []


@pytest.fixture
def compiled(monkeypatch, unchecked):  # the checker cannot be compiled
    """The graphs that PyTorch compiles, and the backends that it was asked for."""
    graphs, backends, real = [], [], torch.compile

    def spy(graph, inputs):
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", lambda model, backend: backends.append(backend) or real(model, backend=spy))
    return graphs, backends


def test_compiling_compiles_the_loss(compiled):
    graphs, backends = compiled
    one, other = Plain(), Plain()
    fit(one, Numbers(), collate, steps=3, **QUIET)
    fit(other, Numbers(), collate, steps=3, compile=True, **QUIET)
    assert any("tanh" in graph.code for graph in graphs)
    same(one, other, 1e-6)
    fit(Plain(), Numbers(), collate, steps=1, compile="aot_eager", **QUIET)
    assert backends == ["inductor", "aot_eager"]


def test_every_system_of_a_process_is_compiled(compiled):
    """PyTorch gives up a function that was compiled eight times, and the loss of all systems is one function."""
    for number in range(10):
        compiled[0].clear()
        fit(type(f"Plain{number}", (Plain,), {})(), Numbers(), collate, steps=1, compile=True, **QUIET)
        assert any("tanh" in graph.code for graph in compiled[0])


def test_frozen_parts_stay():
    system = Plain()
    system.head.requires_grad_(False)
    before = system.head.weight.clone()
    fit(system, Numbers(), collate, steps=2, **QUIET)
    assert torch.equal(system.head.weight, before)


@pytest.mark.usefixtures("unchecked")  # the checker draws from Python's generator
def test_seeds_decide(tmp_path):
    one, two, other = Restless(), Restless(), Restless()
    for system, seed in ((one, 3), (two, 3), (other, 4)):
        killable.start()
        fit(system, Subset(Numbers(), range(20)), collate, steps=2, seed=seed, **QUIET)
    same(one, two)
    with pytest.raises(AssertionError):
        same(one, other)


def test_two_processes_learn_what_one_learns(tmp_path):
    """torchrun on CPU, in float64: to 1e-9; and what is resumed ends bit for bit as what was never stopped."""
    script = Path(fit_in_processes.__file__)
    environment = os.environ | {"PYTHONPATH": f"{script.parent}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment |= {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, script, tmp_path], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    for case in fit_in_processes.CASES:
        whole, resumed = tmp_path / case / "whole", tmp_path / case / "resumed"
        alone, together = (
            fit_in_processes.train(tmp_path / case / "alone", case),
            load_file(whole / "model.safetensors"),
        )
        for name, value in alone.items():
            torch.testing.assert_close(together[name], value, atol=1e-9, rtol=1e-9)
        assert killable.sha256(whole / "model.safetensors") == killable.sha256(resumed / "model.safetensors")
        assert len(lines(whole)) == len(lines(resumed)) == 6
    newest = checkpoints(tmp_path / "plain" / "whole" / "checkpoints")[0]
    assert {path.name for path in newest.glob("random-*")} == {"random-0.safetensors", "random-1.safetensors"}


def test_the_loop_is_read_in_one_sitting():
    """As the design promises: one short file, and few arguments beside the system, its data and their collation."""
    assert len(inspect.getsource(loop).splitlines()) <= 150
    assert len(inspect.signature(loop.fit).parameters) <= 3 + 12
