"""How long steps take and how much memory they hold, on a machine that others may use as well."""

import gc
import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.parallel import DistributedDataParallel

from mmlearn.layers.config import Config
from mmlearn.recipes.discovery import find_recipe
from mmlearn.training.counting import grown
from mmlearn.training.memory import save_memory
from mmlearn.training.optimizers import build_optimizers
from mmlearn.training.updates import Loss

# For a process whose memory is measured: a large block goes back to the system at once, so that what it holds is what
# it needs.
EXACT = {"MALLOC_MMAP_THRESHOLD_": "16384", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_TOP_PAD_": "0"}


def in_turn(ways: Mapping[Any, Callable[[], Any]], rounds: int) -> dict[Any, list[float]]:
    """Seconds of each way in every round, after one that warms up. A slow moment of the machine slows all ways."""
    seconds: dict[Any, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def kept_bytes(compute: Callable[[], Tensor], without: Iterable[Tensor] = ()) -> int:
    """Bytes that ``compute()`` keeps for its backward pass, each storage once, but not those of ``without``."""
    own = {x.untyped_storage() for x in without}
    kept: set[torch.UntypedStorage] = set()

    def keep(x: Tensor) -> Tensor:
        kept.add(x.untyped_storage())
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        compute()
    return sum(storage.nbytes() for storage in kept - own)


def example_batch(name: str, config: Config, b: int, t: int, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """A batch of noise for a system, whose b texts have t tokens."""
    recipe, noise = find_recipe(name), torch.Generator().manual_seed(0)
    batch = grown(next(iter(recipe.examples(config, b=2))), recipe.holds()[0], b, t)
    batch = {key: x.normal_(generator=noise) if x.is_floating_point() else x.fill_(1) for key, x in batch.items()}
    return {key: x.to(device) for key, x in batch.items()}


def peak_memory(
    rank: int, world: int, name: str, config: Config, batches: Sequence[int], t: int, chunks: Sequence[int | None]
) -> list[int]:
    """Bytes that training steps have held at most, after each of ``batches``, which grow; to be run in a process.

    Process r reads ``chunks[r]`` rows at a time, or all where that is None. Its allocator has to be :data:`EXACT`.
    """

    def held(which: str) -> int:
        """Bytes of this process, now (VmRSS) or at most until now (VmHWM). Elsewhere than on Linux only the latter."""
        if not (status := Path("/proc/self/status")).exists():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith(which))

    def train(b: int, chunk: int | None) -> None:
        """Two steps of a new system; the first, on few samples, makes what its optimiser holds."""
        system = find_recipe(name).make(config).train()
        optimizers = build_optimizers(system, "adamw", learning_rate=1e-3, weight_decay=0.1)
        batch = example_batch(name, config, b, t)
        with save_memory(system, False, chunk):
            for rows in (4, b):
                sum(system.loss({key: x[:rows] for key, x in batch.items()}).values()).backward()
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad()

    train(4, chunks[rank] and 2)  # what PyTorch loads with it does not count
    before, found = held("VmRSS"), []
    for b in batches:
        gc.collect()
        train(b, chunks[rank])
        found.append(held("VmHWM") - before)
    return found


def steps_together(
    rank: int, world: int, name: str, config: Config, b: int, t: int, rounds: int, half: bool = True
) -> list[float]:
    """Seconds of each step of data-parallel training on b samples a process; to be run in processes.

    Each has a card of its own where there are cards, and gradients go by NCCL.
    """
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    wire = dist.new_group(backend="nccl") if device.type == "cuda" else None
    torch.manual_seed(0)
    loss = DistributedDataParallel(Loss(find_recipe(name).make(config).to(device)), process_group=wire)
    batch = example_batch(name, config, b, t, device)

    def step() -> None:
        dist.barrier()
        loss.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            value = sum(loss(batch).values())
        value.backward()

    return in_turn({"step": step}, rounds)["step"]
