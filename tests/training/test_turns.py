"""Steps of several turns, and batches that serve one task of several, against what they say they do."""

from collections import Counter

import killable
import pytest
import torch
from fit_in_processes import TURNS, Two, other
from killable import Numbers, collate
from testing_tools import fit
from torch import nn

from mmlearn.data import Batches
from mmlearn.data.collate import TaskSampler
from mmlearn.recipes import OptimizerStep
from mmlearn.training import loop, updates

QUIET = dict(progress=False, batch_size=4, warmup=0, learning_rate=0.01)


def test_turns_are_taken_one_after_the_other():
    """As in plain PyTorch, with an optimiser for each: the second turn sees what the first has done."""
    ours, plain = Two().double(), Two().double()
    history = fit(ours, Numbers(dtype=torch.float64), collate, steps=5, optimizer_steps=TURNS, **QUIET)
    parts = [(plain.other_loss, plain.other), (plain.loss, nn.ModuleList([plain.encoder, plain.head]))]
    optimizers = [
        torch.optim.AdamW(
            [
                {"params": [p for p in part.parameters() if p.ndim > 1], "weight_decay": 0.1},
                {"params": [p for p in part.parameters() if p.ndim <= 1], "weight_decay": 0.0},
            ],
            betas=(0.9, 0.98),
        )
        for _, part in parts
    ]
    batches = Batches(Numbers(dtype=torch.float64), collate, 4)
    for step in range(5):
        losses, norms = [], []
        for (loss, part), optimizer in zip(parts, optimizers):
            plain.zero_grad()
            (value,) = loss(batches[step]).values()
            value.backward()
            norms.append(nn.utils.clip_grad_norm_(part.parameters(), 1.0).item())
            for group in optimizer.param_groups:
                group["lr"] = history[step]["learning_rate"]
            optimizer.step()
            losses.append(value.item())
        assert [history[step][name] for name in ("other", "squares")] == pytest.approx(losses, abs=1e-12)
        assert history[step]["loss"] == pytest.approx(sum(losses), abs=1e-12)
        assert history[step]["gradient_norm"] == pytest.approx(max(norms), abs=1e-9)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, atol=1e-9, rtol=1e-9)


def test_a_turn_has_betas_of_its_own(monkeypatch):
    taken, build = [], updates.build_optimizers

    def watched(*parts, **options):
        taken.append(build(*parts, **options))
        return taken[-1]

    monkeypatch.setattr(updates, "build_optimizers", watched)
    optimizer_steps = [
        OptimizerStep("other_loss", trains=("other",), betas=(0.5, 0.999)),
        OptimizerStep(trains=("encoder", "head")),
    ]
    fit(Two(), Numbers(), collate, steps=1, optimizer_steps=optimizer_steps, **QUIET)
    betas = [{group["betas"] for item in each for group in item.param_groups} for each in taken]
    assert betas == [{(0.5, 0.999)}, {(0.9, 0.98)}]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_what_a_turn_does_not_move_stays(optimizer):
    """Bit for bit, though its loss depends on it; and afterwards everything can learn that could before."""
    system = Two()
    system.head.bias.requires_grad_(False)
    before = {name: value.clone() for name, value in system.state_dict().items()}
    fit(
        system,
        Numbers(),
        collate,
        steps=3,
        optimizer_steps=[OptimizerStep(trains=("head",))],
        optimizer=optimizer,
        **QUIET,
    )
    moved = {name for name, value in system.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"head.weight"}
    assert {name for name, value in system.named_parameters() if not value.requires_grad} == {"head.bias"}


def test_a_part_that_there_is_not():
    with pytest.raises(ValueError, match=r"^Two has no part 'tail' that can be trained\.$"):
        fit(Two(), Numbers(), collate, steps=1, optimizer_steps=[OptimizerStep(trains=("head", "tail"))], **QUIET)


@pytest.mark.usefixtures("unchecked")
def test_turns_accumulate_and_are_resumed(tmp_path):
    """Two batches a turn are one of twice the size; and a run that was stopped ends as one that was not."""
    small, large, stopped = Two().double(), Two().double(), Two().double()
    data, options = Numbers(dtype=torch.float64), QUIET | dict(steps=4, optimizer_steps=TURNS, max_norm=0.5)
    fit(small, data, collate, **options, accumulate=2)
    fit(large, data, collate, **options | dict(batch_size=8))
    for name, value in large.state_dict().items():
        torch.testing.assert_close(small.state_dict()[name], value, atol=1e-10, rtol=1e-10)

    def stop(step, metrics):
        if step == 3:
            raise KeyboardInterrupt

    options |= dict(accumulate=2, output=tmp_path, checkpoint_every=2)
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, data, collate, **options, on_step=stop)
    resumed = Two().double()
    nn.init.ones_(resumed.other.weight)
    fit(resumed, data, collate, **options, resume=True)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in small.state_dict().items())
    with pytest.raises(ValueError, match="was written with other optimisers: it has 2 of them, and this run 1"):
        fit(Two().double(), data, collate, **options | dict(optimizer_steps=[OptimizerStep()]), resume=True)


# Tasks.


def test_shares_are_met():
    alternate = TaskSampler([collate] * 3, (5, 2, 1), seed=3)
    drawn = Counter(alternate.drawn(step) for step in range(8000))
    for number, share in enumerate((5, 2, 1)):
        deviation = (8000 * share / 8 * (1 - share / 8)) ** 0.5
        assert abs(drawn[number] - 1000 * share) < 4 * deviation


def test_a_task_depends_on_seed_and_step_alone():
    one, again, another = (TaskSampler([collate, other], seed=seed) for seed in (0, 0, 1))
    steps = [[each.drawn(step) for step in range(50)] for each in (one, again, another)]
    assert steps[0] == steps[1] != steps[2]
    parts = [Batches(Numbers(), one, 4, rank=rank, world=2) for rank in (0, 1)]
    for step in range(50):  # in all processes
        assert [("other" in part[step]) for part in parts] == [one.drawn(step) == 1] * 2


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.usefixtures("unchecked")
def test_each_task_has_its_data_set(workers):
    """Whoever prepares the batches."""
    seen = []

    class Watched(Two):
        def loss(self, batch):
            seen.append(("other" in batch, len(batch["x"]), batch["x"].abs().max() > 50))
            return super().loss(batch)

    large = Numbers()
    large.x = large.x * 0 + 100
    sources = {None: Numbers(), "large": large}
    tasks = TaskSampler([collate, other], sources=[None, "large"])
    killable.start()
    fit(Watched(), sources, tasks, steps=12, workers=workers, **QUIET)
    assert seen == [(drawn, 4, drawn) for drawn in (tasks.drawn(step) == 1 for step in range(12))]
    assert {drawn for drawn, *_ in seen} == {True, False}


def test_a_data_set_that_is_too_small_for_a_batch():
    sources = {None: Numbers(), "small": Numbers(3)}
    with pytest.raises(ValueError, match="A batch of 4 cannot be drawn from 3 samples"):
        fit(Two(), sources, TaskSampler([collate, other], sources=[None, "small"]), steps=1, **QUIET)


# Lengths.


def test_batches_of_similar_length():
    """Each epoch still visits each sample at most once, and processes share a batch; but less of it is padding."""
    lengths = [3 + (7 * i) % 50 for i in range(200)]
    plain, sorted_ = (Batches(Numbers(200), collate, 8, lengths=each) for each in (None, lengths))

    def spans(batches, epoch):
        found = [[lengths[i] for i in batches.indices(25 * epoch + step)] for step in range(25)]
        return sum(max(batch) - min(batch) for batch in found) / 25

    for epoch in (0, 1):
        visited = [i for step in range(25) for i in sorted_.indices(25 * epoch + step)]
        assert sorted(visited) == list(range(200))
        assert spans(sorted_, epoch) < 0.2 * spans(plain, epoch)
    assert [sorted_.indices(step) for step in range(25)] != [sorted_.indices(step + 25) for step in range(25)]
    firsts = [lengths[sorted_.indices(step)[0]] for step in range(16)]
    assert firsts != sorted(firsts)  # long and short batches come by turns
    parts = [Batches(Numbers(200), collate, 8, lengths=lengths, rank=rank, world=2) for rank in (0, 1)]
    assert [part.indices(7) for part in parts] == [sorted_.indices(7)[:4], sorted_.indices(7)[4:]]


def test_the_loop_takes_lengths(monkeypatch):
    taken = []
    monkeypatch.setattr(
        loop, "batches_of", lambda *parts, **options: taken.append(options) or Batches(*parts, **options)
    )
    fit(Two(), Numbers(), collate, steps=1, lengths=range(24), **QUIET)
    assert list(taken[0]["lengths"]) == list(range(24))
