"""A process of its own that takes a few training steps, and prints the most memory that they took, in bytes."""

import sys
from pathlib import Path

import torch

from mmlearn.recipes.discovery import find_recipe
from mmlearn.training.counting import grown
from mmlearn.training.optimizers import build_optimizers
from mmlearn.training.speed import speed_up


def held(which: str) -> int:
    """Bytes of this process, now (VmRSS) or at most until now (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))


def train(recipe, config, batch) -> None:
    """Three steps."""
    system = recipe.make(config).train()
    optimizers = build_optimizers(system, "adamw", learning_rate=1e-3, weight_decay=0.1)
    with speed_up(system):
        for _ in range(3):
            sum(system.loss(batch).values()).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()


def main(name: str, preset: str, b: int, t: int) -> None:
    torch.set_num_threads(1)
    recipe = find_recipe(name)
    config = recipe.for_examples(recipe.config.preset(preset))
    batch = grown(next(recipe.examples(config, 2)), recipe.holds()[0], b, t)
    batch = {key: x.normal_() if x.is_floating_point() else x.fill_(1) for key, x in batch.items()}
    train(recipe, recipe.tiny(), next(recipe.examples(recipe.tiny(), 2)))  # what PyTorch loads with it does not count
    before = held("VmRSS")
    train(recipe, config, batch)
    print(held("VmHWM") - before)


main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
