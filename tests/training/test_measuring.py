"""What is measured grows and shrinks as it must; nothing is held to a time."""

import sys

import pytest
import torch
from torch import nn

from mmlearn.models.contrastive.clip import CLIP
from mmlearn.processes import in_processes
from mmlearn.recipes.discovery import find_recipe
from mmlearn.training import measuring
from mmlearn.training.measuring import EXACT, example_batch, in_turn, kept_bytes, peak_memory, steps_together


def test_ways_are_taken_in_turn_and_the_first_round_does_not_count():
    asked = []
    seconds = in_turn({"a": lambda: asked.append("a"), "b": lambda: asked.append("b")}, 3)
    assert asked == ["a", "b"] * 4
    assert [len(seconds[name]) for name in ("a", "b")] == [3, 3]


def test_seconds_are_those_after_the_warm_up(monkeypatch):
    clock = iter([0, 10, 11, 20, 22])  # nine seconds to warm up, then one, then two
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: next(clock))
    assert in_turn({"a": lambda: None}, 2) == {"a": [1, 2]}


def test_what_a_layer_keeps():
    layer, x = nn.Linear(4, 8), torch.randn(3, 4)
    two = lambda: torch.tanh(torch.tanh(layer(x)))  # noqa: E731
    assert kept_bytes(two, [x, *layer.parameters()]) == 2 * 4 * 3 * 8  # the outputs of both
    assert kept_bytes(two, layer.parameters()) == 2 * 4 * 3 * 8 + 4 * 3 * 4
    assert kept_bytes(lambda: layer(x) + 1, [x, *layer.parameters()]) == 0
    y = x.clone().requires_grad_()
    assert kept_bytes(lambda: y * y.view(3, 4)) == 4 * 3 * 4  # one storage, however often


def test_a_batch_of_noise_has_the_size_that_was_asked_for():
    batch = example_batch("clip", find_recipe("clip").tiny(), 5, 9)
    assert batch["image"].shape == (5, 3, 64, 64)
    assert batch["tokens"].shape == (5, 9)
    assert find_recipe("clip").make(find_recipe("clip").tiny()).loss(batch)["itc"].isfinite()


@pytest.mark.skipif(sys.platform != "linux", reason="memory of a process is read on Linux")
def test_larger_batches_need_more_memory_and_chunks_less():
    arguments = "clip", find_recipe("clip").tiny(), (16, 128), 8, (None, 8)
    whole, chunks = in_processes(peak_memory, 2, *arguments, environment=EXACT)
    assert whole[1] > 2 * whole[0]
    assert chunks[1] < whole[1] / 2
    assert 0 < chunks[0] <= chunks[1]


def test_steps_of_two_processes():
    found = in_processes(steps_together, 2, "clip", find_recipe("clip").tiny(), 2, 8, 2)
    assert [len(seconds) for seconds in found] == [2, 2]


def precisions(rank, world, half):
    """Whether losses were multiplied in bf16."""
    seen, loss = set(), CLIP.loss
    CLIP.loss = lambda self, batch: seen.add(torch.is_autocast_enabled("cpu")) or loss(self, batch)
    steps_together(rank, world, "clip", find_recipe("clip").tiny(), 2, 8, 1, half)
    return seen


@pytest.mark.parametrize("half", [True, False])
def test_steps_in_half_precision_where_it_is_asked_for(half):
    assert in_processes(precisions, 1, half) == [{half}]
