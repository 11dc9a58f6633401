"""What each process of ``torchrun`` runs: the same systems and batches, in float64, to be compared with one process."""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from killable import Numbers, Plain, collate
from testing_tools import fit
from torch import Tensor, nn

from mmlearn.data.collate import TaskSampler
from mmlearn.recipes import OptimizerStep


class Two(Plain):
    """A second head, which batches with ``other`` train instead; and losses for turns: each head has its own."""

    def __init__(self):
        super().__init__()
        self.other = nn.Linear(8, 3)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.other_loss(batch) if "other" in batch else super().loss(batch)

    def other_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"other": F.mse_loss(self.other(self.encoder(batch["x"]).tanh()), batch["y"].flip(1))}


def other(samples: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    batch = collate(samples)
    return batch | {"other": torch.ones(len(batch["x"]), dtype=torch.bool)}


TURNS = (OptimizerStep("other_loss", trains=("other",)), OptimizerStep(trains=("encoder", "head")))
CASES = {
    "plain": (Plain, collate, {}),
    "turns": (Two, collate, dict(optimizer_steps=TURNS)),
    "tasks": (Two, TaskSampler([collate, other], (2, 1)), {}),  # in each process a head without a gradient
}


def train(output: Path, case: str = "plain", **options) -> dict[str, Tensor]:
    """The weights after a few steps on batches of 8, with gradients cut to a norm that they exceed."""
    torch.set_num_threads(1)
    build, batches, more = CASES[case]
    settings = dict(steps=6, batch_size=8, learning_rate=0.05, warmup=0, max_norm=0.1, checkpoint_every=2)
    system = build().double()
    fit(system, Numbers(dtype=torch.float64), batches, **settings | more | options, output=output, progress=False)
    return system.state_dict()


class Stop(Exception):
    """Ends a run after a step."""


def stop(step: int, metrics: dict[str, float]) -> None:
    if step == 5:
        raise Stop


if __name__ == "__main__":
    for case in CASES:
        folder = Path(sys.argv[1]) / case
        train(folder / "whole", case)
        try:
            train(folder / "resumed", case, on_step=stop)
        except Stop:
            train(folder / "resumed", case, resume=True)
    torch.distributed.destroy_process_group()
