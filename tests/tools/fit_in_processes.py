"""What each process of ``torchrun`` runs: the same system and batch, in float64, to be compared with one process."""

import sys
from pathlib import Path

import torch
from killable import Numbers, Plain, collate

from mmlearn.training import fit


def train(output: Path, **options) -> dict[str, torch.Tensor]:
    """The weights after a few steps on batches of 8, with gradients cut to a norm that they exceed."""
    torch.set_num_threads(1)
    system = Plain().double()
    fit(
        system,
        Numbers(dtype=torch.float64),
        collate,
        **dict(steps=6, batch_size=8, learning_rate=0.05, warmup=0, max_norm=0.1, checkpoint_every=2) | options,
        output=output,
        progress=False,
    )
    return system.state_dict()


class Stop(Exception):
    """Ends a run after a step."""


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    train(folder / "whole")

    def stop(step: int, metrics: dict[str, float]) -> None:
        if step == 5:
            raise Stop

    try:
        train(folder / "resumed", on_step=stop)
    except Stop:
        train(folder / "resumed", resume=True)
    torch.distributed.destroy_process_group()
