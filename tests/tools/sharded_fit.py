"""What each of several processes trains: the same systems and batches, in float64, to be compared with one process."""

import os
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from killable import Numbers, Plain
from killable import collate as numbers
from safetensors.torch import load_file
from testing_tools import Listed, fit, seeded
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from mmlearn.data.batches import CollateFunction
from mmlearn.data.packed import pack
from mmlearn.models.align.albef import ALBEF, ALBEFConfig
from mmlearn.models.bridges.vlm import VLM, VLMConfig
from mmlearn.models.contrastive.clip import CLIP
from mmlearn.recipes import OptimizerStep
from mmlearn.recipes.discovery import find_recipe
from mmlearn.training.distributed import sharded

SETTINGS = dict(steps=4, batch_size=8, learning_rate=0.01, warmup=0, max_norm=0.1, ema=0.5, checkpoint_every=2)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "data parallel": ("clip", {}),
    "sharded": ("clip", dict(shard=True)),
    "chunked": ("clip", dict(chunk=1)),
    "sharded, chunked, recomputed": ("clip", dict(shard=True, chunk=1, recompute=True)),
    "sharded, accumulated": ("clip", dict(shard=True, accumulate=2)),
    "packed": ("vlm", dict(shard=True, recompute=True)),  # of each process other numbers of rows, and of words
    "uneven": ("plain", dict(shard=True)),  # a head of 3 rows, of which a fourth process has none
}


def cases(world: int) -> tuple[str, ...]:
    """What so many processes train: four of them what is not the same for two."""
    return ("data parallel", "sharded, chunked, recomputed", "packed", "uneven") if world == 4 else tuple(CASES)


class Stop(Exception):
    """Ends a run after a step."""


def stop(step: int, metrics: dict[str, float]) -> None:
    if step == 3:
        raise Stop


@cache
def pairs() -> Listed:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(24, 3, 64, 64, generator=generator, dtype=torch.float64)
    tokens = torch.randint(3, 512, (24, 8), generator=generator)
    return Listed(list(zip(images, tokens, torch.arange(24) % 20)))


def collate(samples: list[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    return dict(zip(("image", "tokens", "caption_id"), map(torch.stack, zip(*samples))))


class Normalised(Plain):
    """Of its inputs each process keeps a mean of its own, which all begin with as process 0 has it, in each step."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(x))


def clip() -> CLIP:
    config = find_recipe("clip").tiny()
    return CLIP(replace(config, image=replace(config.image, depth=2), text=replace(config.text, depth=2)))


def albef() -> ALBEF:
    return ALBEF(replace(ALBEFConfig.tiny(), queue_size=14, momentum=0.9, alpha_ramp=2))


def vlm() -> VLM:
    return find_recipe("vlm").make(replace(VLMConfig.tiny(), lora_rank=2))


def answers(samples: list[Tensor]) -> dict[str, Tensor]:
    """Answers about an image, of very different lengths, packed: each sample says its image and its words."""
    rows = [torch.cat([torch.tensor([1, *[511] * 4]), torch.arange(4, 7 + 2 * int(i))]) for i in samples]
    tokens = pad_sequence(rows, True)
    mask, asked = tokens > 0, torch.tensor([6 + int(i) % 3 for i in samples])[:, None]
    response = mask & (torch.arange(tokens.shape[1]) >= asked)
    image = torch.stack([torch.randn(3, 64, 64, generator=seeded(int(i)), dtype=torch.float64) for i in samples])
    return pack({"image": image, "tokens": tokens, "mask": mask, "response": response}, 32)


SYSTEMS = {"vlm": vlm, "clip": clip, "albef": albef, "plain": Plain, "normalised": Normalised}


def build(name: str) -> nn.Module:
    """The same weights in process 0 and where there is one; in other processes others, which must not count."""
    torch.manual_seed(0)
    system = SYSTEMS[name]().double()
    with torch.no_grad():
        for parameter in system.parameters():
            parameter.add_(int(os.environ.get("RANK", "0")))
    return system


def train(
    case: str, output: Path | None, samples: int = 24, **more: Any
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """The weights in the end, and the metrics."""
    name, options = CASES[case]
    system = build(name)
    data, batches = _learned(name, samples)
    history = fit(system, data, batches, **SETTINGS | options | more, output=output, progress=False)
    return system.state_dict(), history


def _learned(name: str, samples: int = 24) -> tuple[Dataset, CollateFunction]:
    if name in ("plain", "normalised"):
        return Numbers(samples, torch.float64), numbers
    if name == "vlm":
        return Listed([torch.tensor(i % 10) for i in range(samples)]), answers
    return Listed(pairs().samples[:samples]), collate


def attempt(**options: Any) -> str:
    """What a run is refused with."""
    try:
        train("data parallel", None, **options)
    except ValueError as error:
        return str(error)
    return "nothing"


def of_other_heads(heads: int) -> str:
    """What a run is refused with where another process has weights of the same shapes, in other heads."""
    system = build("clip")
    system.config = replace(system.config, text=replace(system.config.text, num_heads=heads))
    try:
        fit(system, pairs(), collate, **SETTINGS, progress=False)
    except ValueError as error:
        return str(error)
    return "nothing"


def stopped_and_resumed(case: str, folder: Path, **more: Any) -> None:
    try:
        train(case, folder, on_step=stop, **more)
    except Stop:
        train(case, folder, resume=True, **more)


def process(rank: int, world: int, port: int, folder: Path) -> None:
    """Everything that one of ``world`` processes trains; the first one saves the metrics and what was refused."""
    torch.set_num_threads(1)
    position = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world, MASTER_ADDR="localhost", MASTER_PORT=port)
    os.environ |= {name: str(value) for name, value in position.items()}
    found: dict[str, Any] = {case: train(case, folder / case) for case in cases(world)}
    if world == 2:
        stopped_and_resumed("sharded", folder / "resumed")
        stopped_and_resumed("packed", folder / "resumed packed")
        warnings.simplefilter("ignore")  # of the one process that wrote it
        train("sharded", folder / "of one", resume=True)
        found["both ways"] = {
            name: [_two_steps(name, way) for way in (False, True)] for name in ("albef", "normalised")
        }
        optimizer_steps, half = (OptimizerStep(), OptimizerStep()), ""
        try:
            sharded(build("plain"), (OptimizerStep(),), "fp16")
        except ValueError as error:
            half = str(error)
        found["refused"] = {
            "settings": attempt(batch_size=8 if rank else 4),
            "config": of_other_heads(2 if rank else 4),
            "samples": attempt(samples=23 if rank else 24),
            "more": attempt(batch_size=1),
            "turns": attempt(shard=True, optimizer_steps=optimizer_steps),
            "fp16": half,
            "muon": attempt(shard=True, optimizer="muon"),
        }
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def _two_steps(name: str, shard: bool) -> dict[str, Tensor]:
    """Weights and buffers: of ALBEF there are a momentum encoder and a queue."""
    system = build(name)
    fit(system, *_learned(name), **SETTINGS | dict(steps=2), shard=shard, progress=False)
    return system.state_dict()


def averages(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model-ema.safetensors")
