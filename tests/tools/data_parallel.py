"""What each process of a data-parallel test runs; in a file of its own, because processes import it anew."""

import dataclasses
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmlearn.objectives import gather
from mmlearn.recipes.discovery import find_recipe
from mmlearn.training.memory import save_memory
from mmlearn.training.updates import Loss

BATCH = 12  # over all processes
CASES = {  # at SigLIP's own bias of -10 negatives would hardly count
    "clip": ("clip", {}, False),
    "clip, captions": ("clip", {}, True),
    "siglip": ("siglip", {"bias": -1.0}, False),
    "siglip, captions": ("siglip", {"bias": -1.0}, True),
    "siglip in chunks": ("siglip", {"bias": -1.0, "chunk_size": 4}, True),
    "filip": ("filip", {}, False),
    "filip, captions": ("filip", {}, True),
    "lit": ("lit", {"image_width": 24}, False),
    "vse, captions": ("vse", {"image_width": 24}, True),
    "vse, all negatives": ("vse", {"image_width": 24, "hardest": False}, False),
}
LESS_MEMORY = ["clip, captions", "siglip, captions", "filip, captions"]  # also in chunks, and recomputed


def build(case: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """The system in float64 and the whole batch, the same in every process. Captions repeat across processes."""
    name, changes, captions = CASES[case]
    model, config = find_recipe(name).system, find_recipe(name).config
    torch.manual_seed(0)
    tower = [nn.Sequential(nn.Conv2d(3, 24, 64), nn.Flatten())] if name in ("lit", "vse") else []  # the locked one
    model = Loss(model(dataclasses.replace(config.tiny(), **changes), *tower).double())
    length = torch.tensor([5, 3, 8, 4, 8, 6, 7, 2, 8, 3, 5, 4])
    batch = {
        "image": torch.randn(BATCH, 3, 64, 64, dtype=torch.float64),
        "tokens": torch.randint(3, 512, (BATCH, 8)),
        "mask": torch.arange(8) < length[:, None],
    }
    if captions:
        batch["caption_id"] = torch.tensor([4, 1, 0, 4, 1, 4, 2, 5, 0, 6, 7, 5])
    return model, batch


def step(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The loss, of which each process has its part of the mean, and the gradient of every parameter."""
    loss = sum(model(batch).values())
    loss.backward()
    loss = loss.detach()
    if dist.is_initialized():
        dist.all_reduce(loss)
        loss /= dist.get_world_size()
    gradients = {name.removeprefix("module."): parameter.grad for name, parameter in model.named_parameters()}
    gradients = {name: gradient for name, gradient in gradients.items() if gradient is not None}  # not of the locked
    return {"loss": loss, **gradients}


def work(rank: int, world: int, cases: list[str]) -> dict[str, Any]:
    """What this process gathers, and its loss and gradients in each case."""
    rows = torch.tensor([[10.0 * rank, 1], [10 * rank + 1, 2]], dtype=torch.float64, requires_grad=True)
    gathered = gather(rows)
    (gathered * (rank + 1) * torch.arange(1.0, 2 * world + 1)[:, None]).sum().backward()
    results = {"rows": gathered.detach(), "gradient": rows.grad}
    results["flags"] = gather(torch.tensor([rank == 1, True]))
    results["ids"] = gather(torch.tensor([2**40 + rank]))
    results["strided"] = gather(torch.arange(6).reshape(2, 3).T + rank)
    for case in cases:
        model, batch = build(case)
        batch = {name: rows.chunk(world)[rank] for name, rows in batch.items()}
        results[case] = step(DistributedDataParallel(model), batch)
        if case in LESS_MEMORY:
            model.zero_grad()
            with save_memory(model.system, recompute=True, chunk=2):
                results[f"{case}, less memory"] = step(DistributedDataParallel(model), batch)
    return results
