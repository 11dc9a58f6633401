"""What a step holds for a moment is counted without what was there before it."""

import sys

import pytest
import torch
from torch import nn

from mmlearn.processes import in_processes
from mmlearn.recipes import OptimizerStep
from mmlearn.recipes.discovery import find_recipe
from mmlearn.training.counting import Live, count, count_training
from mmlearn.training.measuring import EXACT, peak_memory


def test_a_view_of_what_was_there_before_takes_nothing():
    before = torch.zeros(100)
    with Live([before]) as live:
        views = before.view(10, 10), before[:50]
        made = before + 1
        assert (live.now, live.most) == (400, 400)
        del views, made
    assert (live.now, live.most) == (0, 400)


def test_neither_weights_nor_the_batch_are_counted_with_a_step():
    class Sum(nn.Linear):
        def loss(self, batch):
            return {"sum": self(batch["x"].view(1000, 64)).sum()}

    outputs = 4 * 1000
    held = count_training(Sum(64, 1, bias=False), (OptimizerStep(),), [{"x": torch.zeros(1000 * 64)}]).memory["plain"]
    assert outputs < held["activations"] < 3 * outputs + 4 * 64


@pytest.mark.skipif(sys.platform != "linux", reason="memory of a process is read on Linux")
def test_memory_of_whole_batches_and_of_chunks_is_as_planned():
    # In eight chunks at most: what PyTorch keeps of the graph of each, beside tensors, is not counted (some 0.3 MiB).
    recipe, batches, chunk = find_recipe("clip"), (64, 256), 32
    peaks = in_processes(peak_memory, 2, "clip", recipe.tiny(), batches, 32, (None, chunk), environment=EXACT)
    counted = {b: count(recipe, recipe.tiny(), b, chunk=chunk, text_length=32) for b in batches}
    for way, measured in zip(("plain", "in chunks"), peaks):
        planned = [found.memory[way]["all"] + b * found.sample for b, found in counted.items()]
        assert planned == pytest.approx(measured, rel=0.15), way
