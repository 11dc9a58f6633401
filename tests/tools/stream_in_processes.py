"""What each of several processes runs: a system that learns from a stream, and keeps which samples it saw."""

import json
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from testing_tools import fit
from torch import Tensor, nn

from mmlearn.data.readers.stream import ShardStream


class Mean(nn.Module):
    """Learns the number of a sample from its picture."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(3, 1)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"squares": F.mse_loss(self.head(batch["colour"]).squeeze(1), batch["number"] / 100)}


def collate(samples: list) -> dict[str, Tensor]:
    """The mean colour of each picture, and the number in its caption."""
    colours = torch.stack([sample.image.mean((1, 2)) for sample in samples])
    return {"colour": colours, "number": torch.tensor([float(sample.caption.split()[-1]) for sample in samples])}


class Seen:
    """Collation that writes down the numbers of all batches, in this process or one of its workers."""

    def __init__(self, path: Path):
        self.path = path

    def __call__(self, samples: list) -> dict[str, Tensor]:
        batch = collate(samples)
        with self.path.open("a") as file:
            file.write(json.dumps([int(number) for number in batch["number"]]) + "\n")
        return batch


class Stop(Exception):
    """Ends a run after a step."""


def stop(step: int, metrics: dict[str, float]) -> None:
    if step == 5:
        raise Stop


def train(data: ShardStream, output: Path, *, steps: int, batch_size: int = 8, **options) -> list[dict[str, float]]:
    """A few steps, of which every third is kept."""
    torch.set_num_threads(1)
    output.mkdir(parents=True, exist_ok=True)
    seen = Seen(output / f"seen-{os.environ.get('RANK', 0)}.jsonl")
    settings = dict(learning_rate=0.05, warmup=0, checkpoint_every=3, progress=False)
    return fit(Mean(), data, seen, steps=steps, batch_size=batch_size, output=output, **settings, **options)


def stopped_and_resumed(data: ShardStream, output: Path, **options) -> list[dict[str, float]]:
    """The same, stopped after step 5 and gone on from what step 3 has kept."""
    try:
        train(data, output, on_step=stop, **options)
    except Stop:
        return train(data, output, resume=True, **options)
    raise AssertionError("It was to stop.")


def work(rank: int, world: int, folder: Path, workers: int) -> None:
    """A run, and the same one stopped and resumed."""
    position = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world, LOCAL_WORLD_SIZE=world)
    os.environ |= {name: str(value) for name, value in position.items()}  # as a launcher says it
    data = ShardStream(folder / "shards", size=8, buffer=6)
    train(data, folder / "whole", steps=10, workers=workers)
    stopped_and_resumed(data, folder / "resumed", steps=10, workers=workers)
