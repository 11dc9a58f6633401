"""Two processes in one: threads that :func:`~mmlearn.objectives.gather` takes for the ranks of a group."""

import sys
import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from mmlearn.objectives import gather


class Ranks:
    """What :mod:`torch.distributed` is to ``gather``, for so many threads."""

    def __init__(self, world: int):
        self.world, self.here = world, threading.local()
        self.barrier, self.brought = threading.Barrier(world, timeout=60), [None] * world

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return hasattr(self.here, "rank")

    def get_world_size(self) -> int:
        return self.world

    def get_rank(self) -> int:
        return self.here.rank

    def all_gather(self, parts: list[Tensor], x: Tensor) -> None:
        self.brought[self.here.rank] = x.clone()
        self.barrier.wait()
        for part, other in zip(parts, self.brought, strict=True):
            assert part.shape == other.shape
            part.copy_(other)
        self.barrier.wait()  # before anyone brings the next

    def all_reduce(self, x: Tensor) -> None:
        parts = [torch.empty_like(x) for _ in range(self.world)]
        self.all_gather(parts, x)
        x.copy_(torch.stack(parts).sum(0))


def in_ranks(work: Callable[[Any], Any], parts: list[Any]) -> list[Any]:
    """What ``work(part)`` returns in each rank, which has its own part; raises what the first of them raises."""
    world = len(parts)
    ranks, found, wrong = Ranks(world), [None] * world, []

    def one(rank: int) -> None:
        ranks.here.rank = rank
        try:
            found[rank] = work(parts[rank])
        except threading.BrokenBarrierError:
            pass  # another one says why, or waits for what never comes
        except Exception as error:
            wrong.append(error)
            ranks.barrier.abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(world)]
    with patch.object(sys.modules[gather.__module__], "dist", ranks):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if wrong:
        raise wrong[0]
    return found
