"""What many processes do together, in one: row r of a tensor is what rank r holds.

It is slower than one process alone, and made to be read, tested and counted. Where several processes do run,
:func:`mmlearn.objectives.all_gather.gather` and the library below PyTorch do the same by ``torch.distributed``.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def gather_backward(gradient: Float[Tensor, "ranks all *rest"]) -> Float[Tensor, "ranks b *rest"]:
    r"""The gradient of each rank's own rows, when every rank has gathered the rows of all and used them in its loss.

    .. math:: \frac{\partial \ell}{\partial x_r} = \sum_q \frac{\partial \ell_q}{\partial x_r},
       \quad \ell = \sum_q \ell_q

    ``gradient[q]`` is that of rank q's loss with respect to all rows, in order of rank. Each rank owns as many:
    ``all`` is ranks · b. It is a reduce-scatter: a sum over ranks, of which each keeps its part.
    """
    return gradient.sum(0).unflatten(0, (len(gradient), -1))


def to_next_rank(message: Float[Tensor, "ranks n"]) -> Float[Tensor, "ranks n"]:
    """Each rank sends its row to the next, and the last to the first: row r of the result is what rank r receives."""
    return message.roll(1, 0)


def ring_all_reduce(part: Float[Tensor, "ranks n"], send: Callable[[Tensor], Tensor]) -> Float[Tensor, "ranks n"]:
    r"""The sum over all ranks on every rank, where a rank sends to the next one only.

    The n numbers are cut into as many chunks as there are ranks, the last filled up with zeros. *Reduce-scatter*: in
    turn s rank r sends chunk r - s, and adds the chunk that it receives to its own; after ranks - 1 turns it holds the
    whole sum of chunk r + 1. *All-gather*: in turn s it sends chunk r + 1 - s, and takes over the one that it receives.
    Chunks are numbered in a circle. So each rank sends

    .. math:: 2 \,(w - 1) \lceil n / w \rceil < 2 n + 2 w

    numbers, however many ranks w there are.
    Source: Patarasuk & Yuan 2009, "Bandwidth Optimal All-reduce Algorithms for Clusters of Workstations".
    """
    ranks, n = part.shape
    chunks = F.pad(part, (0, -n % ranks)).view(ranks, ranks, -1).clone()  # (rank, chunk, numbers)
    rank = torch.arange(ranks)
    for turn in range(ranks - 1):
        chunks[rank, (rank - 1 - turn) % ranks] += send(chunks[rank, (rank - turn) % ranks])
    for turn in range(ranks - 1):
        chunks[rank, (rank - turn) % ranks] = send(chunks[rank, (rank + 1 - turn) % ranks])
    return chunks.flatten(1)[:, :n]
