"""Negatives from every process: gather rows forward, sum their gradients backward.

A contrastive loss of a batch B, shared by processes with b rows each, needs of its B × B matrix in each process only
the :func:`own_rows`, b × B: then the mean of the processes' losses is the loss of the whole batch.
"""

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

EVERY = slice(None)


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

    Every process must bring the same shape. Each then computes the loss of its own rows, or that of the whole batch,
    and the mean that data parallelism takes of their gradients is exactly the gradient of one process with that batch.
    Source: Radford et al. 2021 (CLIP), section 2.5; the gradient through the gather as in open_clip's
    ``gather_with_grad``.
    """
    return _Gather.apply(x) if is_distributed() else x


def own_rows(x: Shaped[Tensor, "b *rest"]) -> slice:
    """Where the rows of this process are among those that :func:`gather` returns; all of them in one process.

    Source: "local loss" of open_clip.
    """
    if not is_distributed():
        return EVERY
    first = dist.get_rank() * len(x)
    return slice(first, first + len(x))


def is_distributed() -> bool:
    """Whether this is one of several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
