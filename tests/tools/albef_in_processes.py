"""What each process of ALBEF's data-parallel test runs; in a file of its own, because processes import it anew."""

import dataclasses

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmlearn.models.align.albef import ALBEF, ALBEFConfig

BATCH = 6  # over all processes
STEPS = 3


class Contrast(nn.Module):
    """The contrast as a forward pass; matching looks for wrong pairs in each process alone, so it is left out."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.model.loss(batch)["itc"]


def train(rank: int = 0, world: int = 1) -> dict[str, Tensor]:
    """A few steps in float64: the losses, the last gradients, and the whole state."""
    torch.manual_seed(0)
    config = dataclasses.replace(ALBEFConfig.tiny(), queue_size=14, momentum=0.9, alpha_ramp=2)
    system = ALBEF(config).double()
    model = Contrast(system)
    if world > 1:
        model = DistributedDataParallel(model, find_unused_parameters=True)
    optimizer = torch.optim.SGD([p for p in system.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(step)
        batch = {
            "image": torch.randn(BATCH, 3, 64, 64, dtype=torch.float64, generator=generator),
            "tokens": torch.randint(3, 512, (BATCH, 8), generator=generator),
            "caption_id": torch.tensor([4, 1, 0, 4, 1, 4]) + 2 * step,  # repeats over processes and in the queue
        }
        if step == 0:
            del batch["caption_id"]  # then a caption is like no other, of this process or the next
        loss = model({name: rows.chunk(world)[rank] for name, rows in batch.items()})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        system.after_step()
        loss = loss.detach()
        if world > 1:  # each has the mean of its own rows
            dist.all_reduce(loss)
        losses.append(loss / world)
    return {"losses": torch.stack(losses), **{name: value.clone() for name, value in system.state_dict().items()}}
