"""What a step holds for a moment is counted without what was there before it."""

import sys

import pytest
import torch
from torch import nn

from mmlearn.processes import in_processes
from mmlearn.recipes.discovery import find_recipe
from mmlearn.training import counting
from mmlearn.training.counting import Live, count
from mmlearn.training.measuring import EXACT, peak_memory
from mmlearn.training.plan import memory


def test_a_view_of_what_was_there_before_takes_nothing():
    before = torch.zeros(100)
    with Live([before]) as live:
        views = before.view(10, 10), before[:50]
        made = before + 1
        assert (live.now, live.most) == (400, 400)
        del views, made
    assert (live.now, live.most) == (0, 400)


def test_neither_weights_nor_the_batch_are_counted_with_a_step():
    system = nn.Linear(64, 1, bias=False)
    batch = {"x": torch.zeros(1000 * 64)}
    outputs = 4 * 1000
    held = counting._live(system, lambda batch: {"x": system(batch["x"].view(1000, 64)).sum()}, batch, None)
    assert outputs < held < 3 * outputs + 4 * 64


@pytest.mark.skipif(sys.platform != "linux", reason="memory of a process is read on Linux")
def test_memory_of_whole_batches_and_of_chunks_is_as_planned():
    recipe, batches, chunk = find_recipe("clip"), (64, 256), 16
    peaks = in_processes(peak_memory, 2, "clip", recipe.tiny(), batches, 32, (None, chunk), environment=EXACT)
    counted = count(recipe, recipe.tiny(), text_length=32)
    for way, measured in zip(("plain", "in chunks"), peaks):
        planned = [memory(counted, b, chunk=chunk)[way]["all"] + b * counted.sample for b in batches]
        assert planned == pytest.approx(measured, rel=0.15), way
