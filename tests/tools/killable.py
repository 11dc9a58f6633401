"""Runs that tests kill: in a file of its own, because processes import it anew."""

import hashlib
import os
import random
import signal
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from testing_tools import fit
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmlearn.data import load
from mmlearn.layers.transformer import MLP
from mmlearn.training import checkpoint
from mmlearn.training.checkpoint import checkpoints
from mmlearn.training.runs import new_run


class Numbers(Dataset):
    """Samples x (6,) with a target y (3,), of the precision asked for."""

    def __init__(self, count: int = 24, dtype: torch.dtype = torch.float32):
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(count, 6, generator=generator, dtype=torch.float64).to(dtype)
        self.y = torch.randn(count, 3, generator=generator, dtype=torch.float64).to(dtype)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index], self.y[index]


def collate(samples: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    x, y = zip(*samples)
    return {"x": torch.stack(x), "y": torch.stack(y)}


class Plain(nn.Module):
    """A loss that is a mean over independent samples."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(6, 8), MLP(8, 8))  # the second of which Muon moves
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).tanh())

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"squares": F.mse_loss(self(batch["x"]), batch["y"])}


class Restless(Plain):
    """All that a checkpoint must keep: dropout, a momentum encoder, a queue with a pointer, and every generator."""

    def __init__(self):
        super().__init__()
        self.momentum = nn.Linear(8, 3).requires_grad_(False)
        self.register_buffer("queue", torch.zeros(4, 3))
        self.register_buffer("pointer", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, 0.3, self.training))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return super().loss(batch) | {"queue": (self.head.bias - self.queue).square().mean()}

    @torch.no_grad()
    def after_step(self) -> None:
        for slow, fast in zip(self.momentum.parameters(), self.head.parameters()):
            slow.lerp_(fast, 0.1)
        noise = random.gauss(0, 1) + np.random.standard_normal() + random.random()
        self.queue[self.pointer] = self.momentum.bias + noise
        self.pointer.add_(1).remainder_(4)


def start(seed: int = 0) -> None:
    """Every generator as at the start of a process."""
    random.seed(seed)
    np.random.seed(seed)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def restless(folder: Path, *, steps: int = 3, checkpoint_every: int = 1, **options) -> None:
    """A run that goes on where there is something to go on from."""
    start()
    resume = bool(checkpoints(folder / "checkpoints"))
    fit(
        Restless(),
        Numbers(),
        collate,
        steps=steps,
        batch_size=4,
        warmup=0,
        optimizer="muon",
        output=folder,
        checkpoint_every=checkpoint_every,
        resume=resume,
        progress=False,
        **options,
    )


@cache
def scenes():
    data = load("scenes", size=32)
    return data, new_run("clip", data, options={"vocab_size": 280})


def clip(folder: Path, steps: int = 12) -> None:
    """The real thing, small: CLIP on scenes."""
    torch.set_num_threads(1)
    data, made = scenes()
    fit(
        made.system,
        data,
        made.collate(),
        steps=steps,
        batch_size=4,
        warmup=2,
        optimizer="muon",
        output=folder,
        checkpoint_every=3,
        resume=bool(checkpoints(folder / "checkpoints")),
        progress=False,
    )


def warm_up() -> None:
    """Have everything imported that a run imports, so that processes forked from here need not."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        clip(Path(folder), steps=1)


if os.environ.get("WARM_UP"):
    warm_up()


def killed_while_saving(folder: Path, last: int) -> None:
    """End this process by SIGKILL when it has half-written its file number ``last``."""
    written = []

    def write(path: Path, tensors: dict[str, Tensor]) -> None:
        written.append(path)
        if len(written) == last:
            path.write_bytes(b"\x10\0\0\0")
            os.kill(os.getpid(), signal.SIGKILL)
        WRITE(path, tensors)

    checkpoint._write = write
    clip(folder)


WRITE = checkpoint._write
