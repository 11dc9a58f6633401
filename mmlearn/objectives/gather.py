"""Negatives from every process: gather rows forward, sum their gradients backward."""

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)  # every process used every row
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def gather(x: Shaped[Tensor, "b *rest"]) -> Shaped[Tensor, "global_b *rest"]:
    """The rows of all processes, in order of rank; ``x`` itself where there is one process.

    Every process must bring the same shape. Each then computes the loss of the whole batch, and the mean that data
    parallelism takes of their gradients is exactly the gradient of one process with that batch.
    Source: Radford et al. 2021 (CLIP), section 2.5; the gradient through the gather as in open_clip's
    ``gather_with_grad``.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return x
    return _Gather.apply(x)
