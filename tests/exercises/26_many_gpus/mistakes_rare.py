"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

import torch

from mmlearn.data.batches import rank_batches
from mmlearn.training.optimizers import scaled_rate


def _padded(order, rank, world, batch_size):
    if len(order) < batch_size:
        order = order.repeat(batch_size)[:batch_size]
    return rank_batches(order, rank, world, batch_size)


def _rows(order, rank, world, batch_size):
    own = batch_size // world
    parts = [order[i + rank * own : i + (rank + 1) * own] for i in range(0, len(order) - batch_size + 1, batch_size)]
    return torch.stack(parts)


RARE = {
    "scaled_rate": {
        "Called without rule: It must be what the statement says.": {
            "root by default": lambda step, rate, batch, base, warmup, rule="root": scaled_rate(
                step, rate, batch, base, warmup, rule
            )
        },
        "Called without rule: It stops with TypeError: <lambda>() missing": {
            "no default": lambda step, rate, batch, base, warmup, rule: scaled_rate(
                step, rate, batch, base, warmup, rule
            )
        },
        "Two batches and a half must get as much of the rate.": {
            "whole factors": lambda step, rate, batch, base, warmup, rule="linear": scaled_rate(
                step, rate, batch // base * base if batch > base else batch, base, warmup, rule
            )
        },
        "A quarter of the batch must get half of the rate, by the root.": {
            "no smaller rate by the root": lambda step, rate, batch, base, warmup, rule="linear": scaled_rate(
                step, rate, max(batch, base) if rule == "root" else batch, base, warmup, rule
            )
        },
    },
    "rank_batches": {
        "Where the samples fill no batch: Its result must have shape": {"padded": _padded},
        "with RuntimeError: stack expects a non-empty TensorList": {"rows": _rows},
    },
}
