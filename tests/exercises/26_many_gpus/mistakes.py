"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import detached, then

from mmlearn.data.batches import rank_batches
from mmlearn.objectives import info_nce
from mmlearn.objectives.large_batch import accumulated_info_nce
from mmlearn.training.estimates import block_flops, kept_by_block, recomputed_bytes, sharded_bytes, utilisation
from mmlearn.training.optimizers import scaled_rate


def _in_parts(image, text, scale, parts, *, cut=lambda x, n: x.unflatten(0, (n, -1)), last=torch.mean):
    """All parts at once, as a batch of matrices, or by a rule that differs in a single position."""
    u, v = cut(image, parts), cut(text, parts)
    logits = scale * torch.einsum("pid,pjd->pij", u, v)
    own = logits.diagonal(dim1=1, dim2=2)
    loss = (logits.logsumexp(1) + logits.logsumexp(2)) / 2 - own  # (parts, pairs)
    return last(loss)


def _shares(n, devices, stage, *, first=(1, 2, 3), only=False, bytes=(8, 4, 4)):
    """Bytes of moments, gradients and weights, each shared from its stage on."""
    total = 0
    for size, begins in zip(bytes, first):
        shared = stage == begins if only else stage >= begins
        total += n * size / (devices if shared else 1)
    return total


def _rate(
    step, rate, batch, base, warmup, rule="linear", *, start=1.0, end=1.0, ratio=lambda b, a: b / a, root=math.sqrt
):
    """Between two rates, weighed by how much of the warm-up is done."""
    k = ratio(batch, base)
    high = rate * (k if rule == "linear" else root(k))
    if step >= warmup:
        return high
    return (rate * start * (warmup - step) + high * end * step) / warmup


def _without_warmup(step, rate, batch, base, warmup, rule="linear"):
    return _rate(warmup, rate, batch, base, warmup, rule)


def _on_and_on(step, rate, batch, base, warmup, rule="linear"):
    high = _rate(warmup, rate, batch, base, warmup, rule)
    return rate + (high - rate) * step / warmup if warmup else high


def _by_a_factor(step, rate, batch, base, warmup, rule="linear"):
    high = _rate(warmup, rate, batch, base, warmup, rule)
    return rate * (high / rate) ** min(1, step / warmup) if warmup else high


def _read(order, rank, world, batch_size, *, steps=lambda n, b: n // b, position=None):
    """Sample by sample: which place of the order is sample j of batch k."""
    own = batch_size // world
    position = position or (lambda k, j: k * batch_size + rank * own + j)
    rows = [[order[position(k, j) % len(order)] for j in range(own)] for k in range(steps(len(order), batch_size))]
    return torch.stack([torch.stack(row) for row in rows]) if rows else order[:0].view(0, own)


def _own_shard(order, rank, world, batch_size):
    """Each rank walks through a part of the epoch of its own."""
    own, share = batch_size // world, len(order) // world
    return _read(order, rank, world, batch_size, position=lambda k, j: rank * share + k * own + j)


def _operations(n, d, m, *, projections=4, pairs=2, layers=2, each=2):
    return each * (projections * n * d * d + pairs * n * n * d + layers * n * d * m)


def _kept(n, d, h, m, fused=False, *, width=8, mlp=2, norms=4, weights=None):
    """A sum over what is kept, or over what is counted in its place."""
    rows = h * n
    weights = weights or (lambda n, h, fused: rows if fused else rows * n)
    return sum([n * d] * width) + sum([n * m] * mlp) + norms * n + weights(n, h, fused)


RIGHT = {  # right answers that are written in another way than the library's
    "utilisation": lambda f, r, peak: (f + 2 * f) / (peak / r),
    "accumulated_info_nce": _in_parts,
    "sharded_bytes": _shares,
    "scaled_rate": _rate,
    "rank_batches": _read,
    "block_flops": _operations,
    "recomputed_bytes": lambda depth, k, i, a: len(range(0, depth, k)) * i + sum([a] * k),
    "kept_by_block": _kept,
}

MISTAKES = {
    "utilisation": {
        "this counts the forward pass alone": {"no backward pass": then(utilisation, lambda u: u / 3)},
        "this counts it once": {"a backward pass as a forward pass": then(utilisation, lambda u: u * 2 / 3)},
        "this counts 4 forward passes": {"what is computed again": then(utilisation, lambda u: u * 4 / 3)},
        "this is upside down": {"upside down": then(utilisation, lambda u: 1 / u)},
        "not a percentage": {"percent": then(utilisation, lambda u: 100 * u)},
        "over those that the device can do at most": {"squares": then(utilisation, lambda u: u**2)},
    },
    "accumulated_info_nce": {
        "must not see the pairs of other parts": {"the whole batch": lambda u, v, s, n: info_nce(u, v, s)},
        "must cost ln(b / parts)": {
            "a sum of parts": lambda u, v, s, n: n * accumulated_info_nce(u, v, s, n),
            "divided by the batch": lambda u, v, s, n: accumulated_info_nce(u, v, s, n) / len(u),
            "parts of so many pairs": lambda u, v, s, n: torch.stack(
                [info_nce(x, y, s) for x, y in zip(u.split(n), v.split(n))]
            ).sum(),
        },
        "here it is the first alone": {
            "the first part": lambda u, v, s, n: info_nce(u[: len(u) // n], v[: len(v) // n], s)
        },
        "here parts take turns": {
            "every n-th pair": partial(_in_parts, cut=lambda x, n: x.unflatten(0, (-1, n)).transpose(0, 1))
        },
        "must have shape ()": {"a loss for each part": partial(_in_parts, last=lambda loss: loss.mean(1))},
        "the mean over parts of InfoNCE": {
            "pictures pick only": lambda u, v, s, n: torch.stack(
                [F.cross_entropy(s * x @ y.T, torch.arange(len(x))) for x, y in zip(u.chunk(n), v.chunk(n))]
            ).mean()
        },
        "A gradient must flow from the result": {"no gradient": detached(accumulated_info_nce)},
    },
    "sharded_bytes": {
        "this counts one of them": {"one moment": partial(_shares, bytes=(4, 4, 4))},
        "this counts 8 bytes of 16": {"no moments": partial(_shares, bytes=(0, 4, 4))},
        "Weights are only 4 bytes of 16": {"weights alone": partial(_shares, bytes=(0, 0, 4))},
        "this shares everything": {"always shared": lambda n, p, stage: sharded_bytes(n, p, 3)},
        "not on all together": {"of all devices": lambda n, p, stage: p * sharded_bytes(n, p, stage)},
        "must hold everything": {"half precision": partial(_shares, bytes=(8, 4, 2))},
        "one stage earlier": {"a stage later": partial(_shares, first=(2, 3, 4))},
        "first; here the weights are": {"weights first": partial(_shares, first=(3, 2, 1))},
        "share what earlier ones share as well": {"one thing a stage": partial(_shares, only=True)},
        "Stage 2 must share moments and gradients": {"everything from stage 2 on": partial(_shares, first=(1, 2, 2))},
    },
    "scaled_rate": {
        "this one is smaller": {"upside down": partial(_rate, ratio=lambda b, a: a / b)},
        "This takes the root of k": {
            "always the root": lambda step, rate, batch, base, warmup, rule="linear": scaled_rate(
                step, rate, batch, base, warmup, "root"
            )
        },
        "This takes k itself": {"never the root": partial(_rate, root=lambda k: k)},
        "this leaves it as it was": {"not scaled": lambda step, rate, *more: rate},
        "this one begins with 0": {"from 0": partial(_rate, start=0.0)},
        "this has no warm-up": {"no warm-up": _without_warmup},
        "this grows by a factor": {"a factor a step": _by_a_factor},
        "After the warm-up it must stay": {"on and on": _on_and_on},
        "ZeroDivisionError": {
            "no warm-up divides by 0": lambda step, rate, batch, base, warmup, rule="linear": (
                scaled_rate(step, rate, batch, base, warmup, rule) + 0 * (1 / warmup)
            )
        },
        "A smaller batch must get a smaller rate": {"whole numbers": partial(_rate, ratio=lambda b, a: max(b // a, 1))},
    },
    "rank_batches": {
        "must have shape": {
            "a batch for each rank": lambda order, rank, world, b: rank_batches(order, 0, 1, b),
            "a short last batch": partial(_read, steps=lambda n, b: -(-n // b)),
            "one row": then(rank_batches, torch.flatten),
        },
        "It must hold samples of order": {"places": lambda order, *more: rank_batches(torch.arange(len(order)), *more)},
        "No two ranks must have the same sample": {
            "the same for all": lambda order, rank, *more: rank_batches(order, 0, *more),
            "moved by one": lambda order, rank, world, b: _read(
                order, rank, world, b, position=lambda k, j: k * b + rank + j
            ),
        },
        "must be the k-th batch_size samples of order": {
            "a shard for each": _own_shard,
            "sorted first": lambda order, *more: rank_batches(order.sort().values, *more),
        },
        "rank 0 must have the first part": {
            "ranks take turns": lambda order, rank, world, b: _read(
                order, rank, world, b, position=lambda k, j: k * b + j * world + rank
            ),
            "the last rank first": lambda order, rank, world, b: rank_batches(order, world - 1 - rank, world, b),
        },
        "Where all batches are full: ": {"the last batch never": partial(_read, steps=lambda n, b: (n - 1) // b)},
    },
    "block_flops": {
        "this counts one": {"multiplications": partial(_operations, each=1)},
        "the products of attention are missing": {"no attention": partial(_operations, pairs=0)},
        "Attention is two products": {"weights alone": partial(_operations, pairs=1)},
        "There are four projections": {"no output": partial(_operations, projections=3)},
        "An MLP has two layers": {"one layer": partial(_operations, layers=1)},
        "mlp_width need not be 4 · width": {"four times": lambda n, d, m: block_flops(n, d, 4 * d)},
        "this counts the backward pass too": {"a training step": partial(_operations, each=6)},
        "It must be 2 (4 n d² + 2 n² d + 2 n d m)": {
            "d² of pairs": lambda n, d, m: 2 * (6 * n * d * d + 2 * n * d * m)
        },
    },
    "recomputed_bytes": {
        "that is computed again must be held too": {
            "inputs alone": lambda depth, k, i, a: recomputed_bytes(depth, k, i, 0)
        },
        "here each block's": {"the input of each block": lambda depth, k, i, a: depth * i + k * a},
        "here one is held": {"one block": lambda depth, k, i, a: recomputed_bytes(depth, k, i, a / k)},
        "here all are": {"all blocks": lambda depth, k, i, a: recomputed_bytes(depth, k, i, a * depth / k)},
        "here those of one are counted": {"of one segment": lambda depth, k, i, a: k * (i + a)},
        "not their number": {"so many segments": lambda depth, k, i, a: k * i + depth / k * a},
        "round up": {
            "rounded down": lambda depth, k, i, a: depth // k * i + k * a,
            "no rounding": lambda depth, k, i, a: depth / k * i + k * a,
        },
    },
    "kept_by_block": {
        "The weights of attention must be kept too": {"no weights": partial(_kept, weights=lambda n, h, fused: 0)},
        "this counts one head": {"one head": partial(_kept, weights=lambda n, h, fused: n if fused else n * n)},
        "Query, key and value must be kept too": {"no query, key and value": partial(_kept, width=5)},
        "are two": {"one of the MLP": partial(_kept, mlp=1)},
        "a mean and a deviation": {"no norms": partial(_kept, norms=0)},
        "have one input together": {"three inputs": partial(_kept, width=10)},
        "It must be numbers, not bytes": {"bytes": then(kept_by_block, lambda count: 4 * count)},
        "mlp_width need not be 4 · width": {
            "four times": lambda n, d, h, m, fused=False: kept_by_block(n, d, h, 4 * d, fused)
        },
        "must keep no weights": {"never fused": lambda n, d, h, m, fused=False: kept_by_block(n, d, h, m)},
        "must keep a sum for each row": {
            "nothing where fused": partial(_kept, weights=lambda n, h, fused: 0 if fused else h * n * n)
        },
    },
}
