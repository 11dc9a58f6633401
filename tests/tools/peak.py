"""Prints the most memory that two steps of training took, in bytes, for each of several systems in its own process."""

import os
import sys
from pathlib import Path

import torch

from mmlearn.recipes.discovery import find_recipe
from mmlearn.training.counting import grown
from mmlearn.training.optimizers import build_optimizers


def held(which: str) -> int:
    """Bytes of this process, now (VmRSS) or at most until now (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))


def train(recipe, config, batch) -> None:
    """Two steps: in the second there is all that an optimiser holds."""
    system = recipe.make(config).train()
    optimizers = build_optimizers(system, "adamw", learning_rate=1e-3, weight_decay=0.1)
    for _ in range(2):
        sum(system.loss(batch).values()).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def measure(name: str, b: int, t: int) -> int:
    """Of a tiny system, with b samples whose texts have t tokens."""
    recipe = find_recipe(name)
    config = recipe.for_examples(recipe.tiny())
    batch = grown(next(recipe.examples(config, 2)), recipe.holds()[0], b, t)
    batch = {key: x.normal_() if x.is_floating_point() else x.fill_(1) for key, x in batch.items()}
    train(recipe, recipe.tiny(), next(recipe.examples(recipe.tiny(), 2)))  # what PyTorch loads with it does not count
    before = held("VmRSS")
    train(recipe, config, batch)
    return held("VmHWM") - before


torch.set_num_threads(1)
for name, b, t in zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3]):
    if not (child := os.fork()):
        print(measure(name, int(b), int(t)), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
