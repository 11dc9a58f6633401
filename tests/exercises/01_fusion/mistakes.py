"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

import math
from functools import partial
from itertools import permutations, product

import torch
import torch.nn.functional as F
from common_mistakes import deaf, detached, then

from mmlearn.models.classic_fusion.lmf import low_rank_product
from mmlearn.models.classic_fusion.tfn import outer_product
from mmlearn.objectives.cues import (
    cue_reconstruction,
    destroy_numbers,
    keep_modalities,
    pair_similarity,
    similarity_of_pairs,
)


def _similar(text, image, *, use=lambda cosine: (1 + cosine) / 2, least=1e-12):
    """Both vectors at length 1 first."""
    return use((F.normalize(text, dim=1, eps=least) * F.normalize(image, dim=1, eps=least)).sum(1))


def _divided(text, image):
    """By the lengths, which may be 0."""
    lengths = text.norm(dim=1) * image.norm(dim=1)
    return ((text * image).sum(1) + lengths) / (2 * lengths)


def _pairs(similarity, true, *, last=torch.mean, least=1e-6, use=lambda s: s, wanted=lambda true: true):
    """PyTorch's own cross-entropy of two classes."""
    s = use(similarity).clamp(least, 1 - least) if least else use(similarity)
    yes = wanted(true)
    return last(-(yes * s.log() + (1 - yes) * (1 - s).log()))


def _products(x, *, one=1.0, front=False, turned=False, join="multiply"):
    """Every product by itself, in the order of the positions of its numbers."""
    ones = torch.full_like(x[..., :1], one)
    x = torch.cat([ones, x] if front else [x, ones], -1)
    vectors = x.unbind(1)[::-1] if turned else x.unbind(1)
    take = torch.prod if join == "multiply" else torch.sum
    positions = product(range(x.shape[2]), repeat=len(vectors))
    return torch.stack([take(torch.stack([v[:, i] for v, i in zip(vectors, at)]), 0) for at in positions], 1)


def _of_low_rank(x, factors, *, use=lambda parts: parts.prod(1).sum(1), front=False, one=1.0):
    """Modality by modality, the last weight beside the 1 as a bias."""
    weights, bias = (factors[:, :, 1:], factors[:, :, 0]) if front else (factors[:, :, :-1], factors[:, :, -1])
    return use(
        torch.stack([x[:, i] @ weights[i] + one * bias[i][:, None] for i in range(x.shape[1])]).permute(2, 0, 1, 3)
    )


def _gated(first, second, w1, w2, wz, *, act=torch.tanh, gate=torch.sigmoid, mix=None, turned=False):
    """Where the gate is open, the first is taken; lerp from the second."""
    z = gate(F.linear(torch.cat([second, first] if turned else [first, second], 1), wz))
    return (mix or (lambda one, two, z: two.lerp(one, z)))(act(F.linear(first, w1)), act(F.linear(second, w2)), z)


def _destroyed(x, chance, share, *, count=round, largest=False):
    """Those of the least chances, written over."""
    k = count(share * x.shape[1])
    return x.scatter(1, chance.topk(k, largest=largest).indices, 0)


def _restored(said, cues, mask, *, error=torch.square, over=None):
    """Only what counts, in one row."""
    if over:
        return over(error(said - cues), mask)
    return error(said - cues)[mask].sum() / max(1, int(mask.sum())) / cues.shape[2]


def _kept(mask, chance, p, *, last=None, there=True, drop=lambda chance, p: chance < p):
    """Row by row, with what may be kept where all would be dropped."""
    rows = []
    for real, c in zip(mask.tolist(), chance.tolist()):
        stay = [r and not drop(one, p) for r, one in zip(real, c)] if there else [not drop(one, p) for one in c]
        if any(real) and not any(stay):
            best = max((one, i) for i, (r, one) in enumerate(zip(real, c)) if r)[1]
            stay = last(real) if last else [i == best for i in range(len(c))]
        rows.append(stay)
    return torch.tensor(rows)


def _first(real):
    return [i == real.index(True) for i in range(len(real))]


def _by_order(label, share):
    """For each order of the rows by their votes, each column says yes from the row on that is best for it."""
    best = 0.0
    for order in permutations(range(len(label))):
        yes, often = label[list(order)], share[list(order)]
        zero = torch.zeros(1, label.shape[1])
        no = torch.cat([zero, (often * ~yes).cumsum(0)])  # right about those that come first, to which no is said
        rest = torch.cat([zero, (often * yes).cumsum(0)])
        best = max(best, float((no + rest[-1] - rest).amax(0).sum()))
    return best


def _one_alone(label, share):
    yes = label * share
    return float(max(torch.maximum(yes.sum(i), (share - yes).sum(i)).sum() for i in (0, 1)))


def _of_votes(label, share, votes):
    """The best of these votes alone."""
    r, k = label.shape
    tables = [torch.tensor([[f + g > 0 for g in fg[r:]] for f in fg[:r]]) for fg in product(votes, repeat=r + k)]
    return max(float(((table == label) * share).sum()) for table in tables)


def _gated_unit(*given):
    return _gated(*given)


RIGHT = {  # right answers that are written in another way than the library's
    "pair_similarity": _similar,
    "similarity_of_pairs": lambda s, true: F.binary_cross_entropy(s.clamp(1e-6, 1 - 1e-6), true.float()),
    "outer_product": _products,
    "low_rank_product": _of_low_rank,
    "gated_unit": _gated,
    "destroy_numbers": _destroyed,
    "cue_reconstruction": _restored,
    "keep_modalities": _kept,
    "most_right_by_votes": _by_order,
}

MISTAKES = {
    "pair_similarity": {
        "here it is the cosine": {"a cosine": partial(_similar, use=lambda cosine: cosine)},
        "here the product is not divided": {"no lengths": lambda t, p: (1 + (t * p).sum(1)) / 2},
        "less similar than what stands at a right angle": {
            "nothing below 0": partial(_similar, use=lambda cosine: cosine.relu()),
            "no sign": partial(_similar, use=lambda cosine: cosine.abs()),
        },
        "a sigmoid keeps it away": {"a sigmoid": partial(_similar, use=torch.sigmoid)},
        "must have shape": {"all pairs": lambda t, p: (1 + F.normalize(t) @ F.normalize(p).T) / 2},
        "For numbers as small": {"a hundredth more": partial(_similar, least=0.01)},
        "must be finite": {"divided by 0": _divided},
        "none comes to image": {"pictures are constants": deaf(pair_similarity, 1)},
    },
    "similarity_of_pairs": {
        "here false ones are to be": {"turned": partial(_pairs, wanted=lambda true: 1 - true)},
        "here only true ones do": {"true ones": lambda s, true: -(true * s.log()).mean()},
        "here it is their sum": {"a sum": partial(_pairs, last=torch.sum)},
        "here it is a squared error": {"squares": lambda s, true: (s - true).square().mean()},
        "here it passes a sigmoid": {"logits": lambda s, t: F.binary_cross_entropy_with_logits(s, t.float())},
        "With similarities of 0 and 1": {
            "no bounds": partial(_pairs, least=0),
            "wide bounds": partial(_pairs, least=1e-3),
        },
        "A gradient must flow from the result": {"no gradient": detached(similarity_of_pairs)},
    },
    "outer_product": {
        "here it stands in front": {"1 in front": partial(_products, front=True)},
        "here it is a 0": {"a 0": partial(_products, one=0.0)},
        "here the first one's do": {"turned": partial(_products, turned=True)},
        "here they are added": {"sums": partial(_products, join="add")},
        "must have shape": {
            "no ones": lambda x: outer_product(x[..., :-1]),
            "side by side": lambda x: torch.cat([x, torch.ones_like(x[..., :1])], -1).flatten(1),
        },
        "A gradient must flow from the result": {"no gradient": detached(outer_product)},
    },
    "low_rank_product": {
        "here they are added": {"a sum": partial(_of_low_rank, use=lambda parts: parts.sum((1, 2)))},
        "here they are multiplied": {"products alone": partial(_of_low_rank, use=lambda parts: parts.prod(1).prod(1))},
        "here ranks are added first": {"ranks first": partial(_of_low_rank, use=lambda parts: parts.sum(2).prod(1))},
        "here it is their mean": {"a mean": partial(_of_low_rank, use=lambda parts: parts.prod(1).mean(1))},
        "here only products of all": {"no ones": partial(_of_low_rank, one=0.0)},
        "here it stands in front": {"1 in front": partial(_of_low_rank, front=True)},
        "must have shape": {"of each rank": partial(_of_low_rank, use=lambda parts: parts.prod(1))},
        "none comes to factors": {"factors are constants": deaf(low_rank_product, 1)},
    },
    "gated_unit": {
        "here it is the second's": {"turned": partial(_gated, mix=torch.lerp)},
        "here both have z": {"one gate": partial(_gated, mix=lambda one, two, z: z * one + z * two)},
        "here it is the mean": {"no gate": partial(_gated, mix=lambda one, two, z: (one + two) / 2)},
        "here it is linear": {"no tanh": partial(_gated, act=lambda x: x)},
        "here they share a softmax": {"a softmax": partial(_gated, gate=lambda x: x.softmax(1))},
        "here it reads [x2; x1]": {"the second first": partial(_gated, turned=True)},
        "A gradient must flow from the result": {"no gradient": detached(_gated_unit)},
        "none comes to ": {"the gate is a constant": deaf(_gated_unit, 4)},
    },
    "destroy_numbers": {
        "here all with a chance below": {"a bound": lambda x, chance, share: x * (chance >= share)},
        "is cut off": {"cut off": partial(_destroyed, count=int)},
        "here it is rounded up": {"rounded up": partial(_destroyed, count=math.ceil)},
        "here those with the highest are": {
            "the highest": partial(_destroyed, largest=True),
            "the others": lambda x, chance, share: x - destroy_numbers(x, chance, share) if share else x,
        },
        "as dropout does": {"scaled": lambda x, chance, share: destroy_numbers(x, chance, share) / (1 - share)},
        "here all rows lose the same": {
            "the first row": lambda x, chance, share: destroy_numbers(x, chance[:1].expand_as(x), share)
        },
        "here it is taken once": {
            "one argsort": lambda x, chance, share: x.masked_fill(chance.argsort(1) < round(share * x.shape[1]), 0)
        },
        "With ν = 0: Nothing must change": {"one at least": partial(_destroyed, count=lambda n: max(1, round(n)))},
    },
    "cue_reconstruction": {
        "here it does": {"all": partial(_restored, over=lambda e, mask: e.mean())},
        "here it is to be restored as 0": {"zeros": lambda said, cues, mask: F.mse_loss(said, cues * mask[..., None])},
        "divided by all": {"diluted": partial(_restored, over=lambda e, mask: (e * mask[..., None]).mean())},
        "here they are added": {"lengths": partial(_restored, over=lambda e, mask: e.sum(2)[mask].mean())},
        "here they are absolute": {"absolute": partial(_restored, error=torch.abs)},
        "here each row does": {
            "of rows": partial(_restored, over=lambda e, mask: ((e.mean(2) * mask).sum(1) / mask.sum(1)).mean())
        },
        "Where no modality was there": {"NaN": partial(_restored, over=lambda e, mask: e[mask].mean())},
        "must have shape ()": {"of each row": partial(_restored, over=lambda e, mask: e.mean((1, 2)))},
        "A gradient must flow from the result": {"no gradient": detached(cue_reconstruction)},
    },
    "keep_modalities": {
        "What is not there must not be kept": {
            "the mask is forgotten": lambda mask, chance, p: keep_modalities(mask | True, chance, p) if p else mask
        },
        "here it is kept there": {"turned": lambda mask, chance, p: mask & (chance < p) if p else mask},
        "here all are dropped": {"none at all": lambda mask, chance, p: mask & (chance >= p)},
        "here all come back": {"all back": partial(_kept, last=lambda real: real)},
        "here it is the first": {"the first": partial(_kept, last=_first)},
        "With p = 0: All must stay": {"one alone": lambda mask, chance, p: keep_modalities(mask, chance, 1.0)},
        "must be boolean": {"whole numbers": then(keep_modalities, torch.Tensor.int)},
    },
    "most_right_by_votes": {
        "here all are right": {"each pair votes": lambda label, share: float(share.sum())},
        "here all count alike": {
            "cells": lambda label, share: _by_order(label, torch.full_like(share, 1 / share.numel()))
        },
        "here one modality decides": {"one alone": _one_alone},
        "here it is one alone": {"the likeliest": lambda label, share: share.max().item()},
        "Votes of all sizes": {"three votes": partial(_of_votes, votes=(-1, 0, 1))},
        "It must return one number": {"of each pair": lambda label, share: share * 1},
    },
}
