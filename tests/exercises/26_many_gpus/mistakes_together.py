"""Wrong answers about a shared batch, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import detached, then, with_inputs
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmlearn.objectives import info_nce
from mmlearn.objectives.large_batch import accumulated_info_nce, chunked_info_nce, local_info_nce
from mmlearn.training.collectives_demo import gather_backward, ring_all_reduce


def _blocks(gradient):
    """By whose loss, and by whose rows."""
    ranks = len(gradient)
    return gradient.unflatten(1, (ranks, -1))


def _by_autograd(gradient):
    """What autograd says of rows that every rank joins to one tensor."""
    ranks, n, *rest = gradient.shape
    rows = [torch.zeros(n // ranks, *rest, requires_grad=True) for _ in range(ranks)]
    joined = [torch.cat(rows) for _ in range(ranks)]
    return torch.stack(torch.autograd.grad(sum((x * g).sum() for x, g in zip(joined, gradient)), rows))


def _local(
    image, text, images, texts, scale, first, *, position=lambda i, first: first + i, last=torch.mean, ways=(True, True)
):
    """Row by row: the logarithm of a sum of exponentials, less the right logit."""
    costs = []
    for own, others, asked in ((image, texts, ways[0]), (text, images, ways[1])):
        logits = scale * torch.einsum("id,jd->ij", own, others)
        right = torch.stack([row[position(i, first)] for i, row in enumerate(logits)])
        costs += [logits.logsumexp(1) - right] if asked else []
    return last(torch.stack(costs).mean(0))


class _RowByRow(torch.autograd.Function):
    """InfoNCE whose gradient is written out, and computes its logits again."""

    @staticmethod
    def forward(ctx, u, v, s, size):
        ctx.save_for_backward(u, v, s)
        ctx.size, b = size, len(u)
        sums = [[(s * x @ other.T).logsumexp(1) for x in own.split(size)] for own, other in ((u, v), (v, u))]
        ctx.sums = [torch.cat(one) for one in sums]
        return (ctx.sums[0].sum() + ctx.sums[1].sum()) / (2 * b) - s * (u * v).sum() / b

    @staticmethod
    def backward(ctx, gradient):
        u, v, s = ctx.saved_tensors
        b = len(u)
        of_u, of_v, of_s = -s * v / b, -s * u / b, -(u * v).sum() / b
        for own, other, sums, swap in ((u, v, ctx.sums[0], False), (v, u, ctx.sums[1], True)):
            for i in range(0, b, ctx.size):
                rows = slice(i, i + ctx.size)
                cosine = own[rows] @ other.T
                p = (s * cosine - sums[rows, None]).exp() / (2 * b)
                of_s = of_s + (p * cosine).sum()
                here, there = torch.zeros_like(own), s * p.T @ own[rows]
                here[rows] = s * p @ other
                of_u, of_v = (of_u + there, of_v + here) if swap else (of_u + here, of_v + there)
        return gradient * of_u, gradient * of_v, gradient * of_s, None


def _chunks(u, v, s, size, *, again=None, weigh=lambda n, b, parts: n / b):
    """A sum over chunks of local losses, or what differs in a single position."""
    b, total = len(u), 0
    again = again or partial(checkpoint, use_reentrant=False)
    starts = range(0, b, size)
    for i in starts:
        share = weigh(len(u[i : i + size]), b, len(starts))
        total = total + share * again(local_info_nce, u[i : i + size], v[i : i + size], u, v, s, i)
    return total


def _images_pick(u, v, s, size):
    chunks = range(0, len(u), size)
    cost = [
        F.cross_entropy(s * u[i : i + size] @ v.T, torch.arange(i, min(i + size, len(u))), reduction="sum")
        for i in chunks
    ]
    return sum(cost) / len(u)


def _ring(part, send, *, second=True, add=False, cut=True, turns=lambda w: w - 1, pad=True):
    """By lists of chunks and loops over ranks, or by a rule that differs in a single position."""
    w, n = part.shape
    if w == 1:
        return part.clone()
    size = -(-n // w) if pad else n // w + 1
    filled = torch.cat([part, torch.zeros(w, w * size - n)], 1)
    held = [[filled[r, c * size : (c + 1) * size].clone() for c in range(w)] for r in range(w)]
    for turn in range(turns(w)):
        received = send(torch.stack([held[r][(r - turn - 1) % w] for r in range(w)]))
        for r in range(w):
            held[r][(r - turn - 2) % w] = held[r][(r - turn - 2) % w] + received[r]
    for turn in range(turns(w) if second else 0):
        received = send(torch.stack([held[r][(r - turn) % w] for r in range(w)]))
        for r in range(w):
            position = (r - turn - 1) % w
            held[r][position] = held[r][position] + received[r] if add else received[r]
    result = torch.stack([torch.cat(chunks) for chunks in held])
    return result[:, :n] if cut else result


def _whole_vectors(part, send):
    """Each rank sends all of its numbers around the ring."""
    total, message = part, part
    for _ in range(len(part) - 1):
        message = send(message)
        total = total + message
    return total


def _pretends(part, send):
    """As many messages as there should be, and a sum that does not look at them."""
    ring_all_reduce(part, send)
    return part.sum(0).expand(part.shape).clone()


def _must_divide(part, send):
    part.view(len(part), len(part), -1)
    return ring_all_reduce(part, send)


def _surrogate(encode, loss, x, size):
    """The product of embeddings and of their gradient has the right gradient."""
    chunks = [x[i : i + size] for i in range(0, len(x), size)]
    known = torch.cat([encode(chunk).detach() for chunk in chunks]).requires_grad_()
    value = loss(known)
    value.backward()
    for i, chunk in enumerate(chunks):
        (encode(chunk) * known.grad[i * size : (i + 1) * size]).sum().backward()
    return value.detach()


def _whole(encode, loss, x, size):
    value = loss(encode(x))
    value.backward()
    return value.detach()


def _all_graphs(encode, loss, x, size):
    value = loss(torch.cat([encode(chunk) for chunk in x.split(size)]))
    value.backward()
    return value.detach()


def _recomputed(encode, loss, x, size):
    """A checkpoint around each chunk."""
    chunks = [checkpoint(encode, chunk, use_reentrant=False) for chunk in x.split(size)]
    value = loss(torch.cat(chunks))
    value.backward()
    return value.detach()


def _loss_of_chunks(encode, loss, x, size):
    chunks = x.split(size)
    values = [loss(encode(chunk)) / len(chunks) for chunk in chunks]
    for value in values:
        value.backward()
    return sum(values).detach()


def _two_passes(encode, loss, x, size, *, order=lambda parts: parts, second=True, fresh=False, twice=False):
    embedding = torch.cat([encode(chunk).detach() for chunk in x.split(size)]).requires_grad_()
    value = loss(embedding)
    value.backward(retain_graph=twice)
    gradient = embedding.grad.clone()
    if twice:
        value.backward()
    if fresh and isinstance(encode, nn.Module):
        encode.zero_grad()
    for chunk, part in zip(x.split(size), order(gradient.split(size))):
        if second:
            out = encode(chunk)
            out.backward(part[: len(out)].expand_as(out))
    return value.detach()


RIGHT = {  # right answers that are written in another way than the library's
    "gather_backward": _by_autograd,
    "local_info_nce": _local,
    "chunked_info_nce": _RowByRow.apply,
    "ring_all_reduce": _ring,
    "backward_in_chunks": _surrogate,
}

MISTAKES = {
    "gather_backward": {
        "here from its own rank's only": {
            "its own loss": lambda g: torch.stack([block[rank] for rank, block in enumerate(_blocks(g))])
        },
        "says of the rows of all": {"the other axis": lambda g: _blocks(g).sum(1)},
        "not the mean": {"a mean": then(gather_backward, lambda x: x / len(x))},
        "here ranks take turns": {"turns": lambda g: g.sum(0).unflatten(0, (-1, len(g))).transpose(0, 1)},
        "must have shape": {"the whole sum": lambda g: g.sum(0).expand(g.shape).clone(), "not cut": lambda g: g.sum(0)},
        "cut into as many parts in order of rank": {"the last first": then(gather_backward, lambda x: x.flip(0))},
    },
    "local_info_nce": {
        "must cost ln of the number of all rows": {
            "own rows alone": lambda u, v, images, texts, s, first: info_nce(u, v, s),
            "a sum": partial(_local, last=torch.sum),
            "divided by all": lambda u, v, images, *more: local_info_nce(u, v, images, *more) * len(u) / len(images),
        },
        "here it picks row i": {"from 0": partial(_local, position=lambda i, first: i)},
        "here only one of both is asked": {
            "pictures pick only": partial(_local, ways=(True, False)),
            "texts pick only": partial(_local, ways=(False, True)),
        },
        "here each picks within its own modality": {
            "within a modality": lambda u, v, images, texts, *more: local_info_nce(u, v, texts, images, *more)
        },
        "take first as it is given": {
            "a multiple of b": lambda u, v, images, texts, s, first: local_info_nce(
                u, v, images, texts, s, first // len(u) * len(u)
            )
        },
        "none comes to all_images": {
            "a gather without gradient": with_inputs(local_info_nce, lambda x: x.detach(), 2, 3)
        },
        "A gradient must flow from the result": {"no gradient": detached(local_info_nce)},
        "must have shape ()": {"one loss a row": partial(_local, last=lambda x: x)},
    },
    "chunked_info_nce": {
        "here each is a batch of its own": {
            "mean of chunks": lambda u, v, s, size: (
                accumulated_info_nce(u, v, s, 1)
                if size >= len(u)
                else torch.stack([info_nce(*pair, s) for pair in zip(u.split(size), v.split(size))]).mean()
            )
        },
        "short last chunk counts more": {"a mean of means": partial(_chunks, weigh=lambda n, b, parts: 1 / parts)},
        "here only pictures pick": {"pictures pick only": _images_pick},
        "exactly": {"a sum of means": partial(_chunks, weigh=lambda n, b, parts: 1.0)},
        "must never be made": {"the whole matrix": lambda u, v, s, size: info_nce(u, v, s)},
        "Logits must not be kept": {"no checkpoint": partial(_chunks, again=lambda loss, *more: loss(*more))},
        "must not be there at once either": {
            "one checkpoint": lambda *inputs: checkpoint(
                partial(_chunks, again=lambda loss, *more: loss(*more)), *inputs, use_reentrant=False
            )
        },
        "A gradient must flow": {"no gradient": detached(chunked_info_nce)},
        "Its gradient must be right": {
            "only own rows learn": lambda u, v, s, size: _chunks(
                u, v, s, size, again=lambda loss, x, y, u, v, *more: loss(x, y, u.detach(), v.detach(), *more)
            )
        },
    },
    "ring_all_reduce": {
        "this never sends": {"a sum": lambda part, send: part.sum(0).expand(part.shape).clone()},
        "not the mean": {"a mean": lambda part, send: ring_all_reduce(part, send) / len(part)},
        "this sends": {"whole vectors": _whole_vectors, "a chunk too long": partial(_ring, pad=False)},
        "and needs the others": {"one half": partial(_ring, second=False)},
        "Every rank must hold the sum over all ranks": {
            "adds in both halves": partial(_ring, add=True),
            "a turn too few": partial(_ring, turns=lambda w: w - 2),
        },
        "here others' numbers arrive nevertheless": {"looks at all rows": _pretends},
        "It stops in line": {"must divide": _must_divide},
        "must have shape": {"zeros left": partial(_ring, cut=False)},
    },
    "backward_in_chunks": {
        "the loss of all rows together": {"a loss for each chunk": _loss_of_chunks},
        "No more than size rows must be encoded at once": {"all at once": _whole},
        "here those of several are": {"all graphs": _all_graphs},
        "here no gradient comes to its parameters": {"one pass": partial(_two_passes, second=False)},
        "not replace them": {"a fresh gradient": partial(_two_passes, fresh=True)},
        "must get its gradient once": {"backward twice": partial(_two_passes, twice=True)},
        "must be that of loss(encode(x)).backward()": {
            "another chunk's gradient": partial(_two_passes, order=lambda parts: [parts[-2], *parts[:-2], parts[-1]]),
            "ones": partial(_two_passes, order=lambda parts: [torch.ones_like(part) for part in parts]),
        },
    },
}
