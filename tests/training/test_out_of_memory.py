"""Out of memory: one line says what to lower, and what it says would fit."""

import inspect
import re
from functools import cache
from math import ceil

import pytest
import torch
from testing_tools import Listed, fit, refused
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from mmlearn import training
from mmlearn.data import load
from mmlearn.data.batches import batches_of
from mmlearn.recipes import OptimizerStep
from mmlearn.recipes.discovery import find_recipe
from mmlearn.training import TrainingOptions, counting, out_of_memory
from mmlearn.training.counting import count
from mmlearn.training.out_of_memory import MARGIN, device_bytes, tells_what_fits, what_fits
from mmlearn.training.plan import GIB
from mmlearn.training.runs import new_run


def counts(name, world=1):
    """What counts a step of this system on each of so many devices."""
    recipe = find_recipe(name)
    return cache(lambda b, chunk: count(recipe, recipe.tiny(), world * b, devices=world, chunk=chunk, text_length=16))


@pytest.fixture(scope="module")
def clip():
    return counts("clip")


@pytest.fixture(scope="module")
def gpt2():
    return counts("gpt2")


def asked(text, before):
    return int(re.search(before + r" ?(\d+)", text)[1])


def held(counted, b, way="plain", chunk=1024):
    return counted(b, chunk).memory[way]["all"] * MARGIN


@pytest.mark.parametrize("world", [1, 4])
def test_the_batch_size_that_is_named_is_the_first_half_that_fits(world):
    gpt2 = counts("gpt2", world)
    room = ceil(held(gpt2, 40))
    said = what_fits(gpt2, room, 256 * world, world, recompute=False, chunk=None)
    lower = asked(said, "lower the batch size to")
    assert lower == 32 * world
    assert held(gpt2, 32) <= room < held(gpt2, 64)
    assert f"needs {held(gpt2, 256) / MARGIN / GIB:.1f} GiB, and the device has {room / GIB:.1f}" in said
    assert "chunk" not in said  # it has no towers


def test_what_keeps_the_batch_is_named_too(clip):
    room = ceil(max(held(clip, 512, "recomputed"), held(clip, 512, "in chunks", chunk=64)))
    said = what_fits(clip, room, 512, recompute=False, chunk=None)
    assert re.search(r"lower the batch size to \d+, or recompute, or read in chunks of \d+ \(chunk\)\.$", said)
    chunk = asked(said, "chunks of")
    assert held(clip, 512, "in chunks", chunk=chunk) <= room < held(clip, 512, "in chunks", chunk=2 * chunk)


def test_in_chunks_already_they_become_smaller(clip):
    room = ceil(held(clip, 64, "in chunks", chunk=8))
    said = what_fits(clip, room, 64, recompute=False, chunk=32)
    assert "read in chunks of 8 (chunk)." in said
    assert "recompute" not in said


def test_recomputed_already_only_the_batch_becomes_smaller(gpt2):
    room = ceil(held(gpt2, 64, "recomputed"))
    assert what_fits(gpt2, room, 256, recompute=True, chunk=None).endswith("What fits: lower the batch size to 64.")


def test_weights_that_are_cut_leave_room():
    world, batch = 4, 8
    gpt2 = counts("gpt2", world)
    cut, whole = (gpt2(2, 2).memory[way]["all"] for way in ("sharded", "plain"))
    room = ceil(cut * MARGIN)
    assert room < whole
    options = dict(recompute=False, chunk=None)
    assert "cut the weights among processes (shard)" in what_fits(gpt2, room, batch, world, **options)
    assert "(shard)" not in what_fits(gpt2, room - 1, batch, world, **options)
    said = what_fits(gpt2, room - 1, batch, world, shard=True, **options)
    assert f"needs {cut / GIB:.1f} GiB" in said
    assert "shard" not in said
    assert "(shard)" not in what_fits(counts("gpt2"), room, batch, 1, **options)


def test_where_nothing_fits_and_where_all_should(gpt2):
    weights = gpt2(1, 1).memory["plain"]["weights"]
    assert "No batch is small enough" in what_fits(gpt2, weights, 64, recompute=False, chunk=None)
    said = what_fits(gpt2, 80 * GIB, 64, 2, recompute=False, chunk=None)
    assert said.endswith("another program may hold some (see nvidia-smi); end it, or lower the batch size to 32.")
    assert what_fits(gpt2, 80 * GIB, 4, 4, recompute=False, chunk=None).endswith("or lower the batch size to 4.")


def test_fit_says_it_of_texts_as_long_as_they_are(monkeypatch):
    """A faked card, which is full at the first step."""

    def full(batch):
        if isinstance(batch["tokens"], FakeTensor):  # where it is counted, there are no numbers
            return type(run.system).loss(run.system, batch)
        lengths.append(batch["tokens"].shape[1])
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation.")

    lengths, data = [], load("emoji")
    run = new_run("gpt2", data)
    run.system.loss = full
    found = count(run.recipe, run.system.config, 20, text_length=8)
    room = ceil(found.memory["plain"]["all"] * MARGIN)
    monkeypatch.setattr(out_of_memory, "device_bytes", lambda: room)
    options = dict(steps=2, batch_size=64, progress=False)
    with pytest.raises(ValueError, match=r"^Out of memory: by the planner's count a batch of 64 needs") as error:
        fit(run.system, data, run.collate(), **options)
    lower = asked(str(error.value), "lower the batch size to")
    longest = max(run.collate()([data[i] for i in range(64)])["tokens"].shape[1], *lengths)
    assert 20 * 8 / (4 * longest) < lower < 64
    assert "\n" not in str(error.value)


def full(*given, **named):
    raise torch.OutOfMemoryError("CUDA out of memory.")


full.__signature__ = inspect.signature(training.fit)


@pytest.mark.usefixtures("unchecked")
def test_the_planner_counts_what_was_asked_for(monkeypatch):
    """And texts as long as the longest of the first batches."""
    told = []
    monkeypatch.setattr(counting, "count_training", lambda *given, **how: told.append((given, how)) or "counted")
    monkeypatch.setattr(out_of_memory, "what_fits", lambda *given, **ways: told.append((given, ways)) or "this.")
    data = load("emoji", size=32)
    run = new_run("clip", data)
    learned, ways = dict(precision="bf16", optimizer="muon"), dict(recompute=True, chunk=4, shard=True)
    optimizer_steps = (OptimizerStep(), OptimizerStep())
    how = TrainingOptions(precision="bf16", **ways)
    options = dict(steps=1, batch_size=8, optimizer_steps=optimizer_steps, seed=1, optimizer="muon", options=how)
    refused(r"^Out of memory: this\.$", tells_what_fits(full), run.system, data, run.collate(), **options)
    drawn = batches_of(data, run.collate(), 8, seed=1)
    lengths = [drawn[k]["tokens"].shape[1] for k in range(out_of_memory.LOOKED_AT)]
    assert lengths[0] < max(lengths) < run.system.config.text.max_length
    (((counting_it, *rest), fitting),) = told
    assert (rest, fitting) == ([device_bytes(), 8, 1], ways)
    counting_it(5, 2)
    (system, taken, (batch,)), how = told[1]
    assert (system, taken, how) == (run.system, optimizer_steps, learned | dict(devices=1, chunk=2))
    assert {name: (tuple(x.shape), x.dtype) for name, x in batch.items()} == {
        "image": ((5, 3, 32, 32), torch.float32),
        "tokens": ((5, max(lengths)), torch.int64),
        "mask": ((5, max(lengths)), torch.bool),
        "caption_id": ((5,), torch.int64),
    }


def test_what_is_free_and_what_it_has_is_what_a_process_can_have(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (3 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 20 * GIB)
    assert device_bytes() == 23 * GIB


@pytest.mark.usefixtures("unchecked")
def test_a_batch_that_the_memory_of_the_machine_does_not_hold():
    data = load("emoji", size=32)
    run = new_run("clip", data)

    real = run.system.loss
    run.system.loss = lambda batch: real(batch) if isinstance(batch["image"], FakeTensor) else torch.empty(2**60)
    refused("Out of memory: by the planner's count a batch of 8 needs", fit, run.system, data, run.collate(), steps=1,
            batch_size=8, progress=False)  # fmt: skip


class Own(nn.Module):
    """A system without a recipe, which takes 4 · 1000 bytes a sample and keeps them once."""

    def __init__(self, error):
        super().__init__()
        self.weight, self.error = nn.Parameter(torch.ones(1)), error

    def loss(self, batch):
        if not isinstance(batch["x"], FakeTensor):  # a faked card, which is full; what is counted has no numbers
            raise self.error
        return {"loss": (batch["x"][:, None] * self.weight).expand(-1, 1000).exp().mean()}


class Opaque(Own):
    """One that cannot be counted."""

    def loss(self, batch):
        raise self.error


def collate(samples):
    return {"x": torch.tensor(samples)}


OUT = torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.usefixtures("unchecked")
def test_a_system_without_a_recipe_is_counted_too(monkeypatch):
    monkeypatch.setattr(out_of_memory, "device_bytes", lambda: 400_000)
    options = dict(steps=1, batch_size=200, progress=False)
    with pytest.raises(ValueError, match=r"^Out of memory: by the planner's count a batch of 200 needs") as error:
        fit(Own(OUT), Listed([1.0] * 300), collate, **options)
    lower = asked(str(error.value), "lower the batch size to")
    assert 400_000 / MARGIN / 32_000 < lower < 400_000 / MARGIN / 4000  # gradients on the way need some, too


@pytest.mark.usefixtures("unchecked")
def test_samples_that_are_batches_are_counted_by_their_rows():
    """As where a chapter makes its batches itself."""
    options = dict(steps=1, batch_size=1, progress=False)
    says = "^Out of memory: by the planner's count a batch of 50 needs"
    refused(says, fit, Own(OUT), Listed([[1.0] * 50] * 9), lambda drawn: collate(drawn[0]), **options)


@pytest.mark.usefixtures("unchecked")
def test_half_the_batch_is_a_start_where_nothing_can_be_counted():
    says = r"^Out of memory: lower the batch size from 10, to 5 at first\.$"
    options, data = dict(steps=1, batch_size=10, progress=False), Listed([1.0] * 20)
    refused(says, fit, Opaque(OUT), data, collate, **options)
    with pytest.raises(RuntimeError, match="another error"):
        fit(Opaque(RuntimeError("another error")), data, collate, **options)
