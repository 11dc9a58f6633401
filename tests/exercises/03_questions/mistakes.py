"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from collections import Counter
from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import deaf, detached, then

from mmlearn.evaluation.answers import prior_guesses
from mmlearn.models.question_answering.memory_network import position_encoding


def _fused(x, q, w_x, w_q, *, act=torch.tanh, other=torch.tanh, join=torch.mul):
    """By PyTorch's linear."""
    return join(act(F.linear(x, w_x)), other(F.linear(q, w_q)))


def same(x):
    """What it was."""
    return x


def _priors(kind, train_kind, answer, *, pick=None, lacking=None):
    """By counting in plain Python."""
    pick = pick or (lambda counts: min(counts, key=lambda one: (-counts[one], one)))
    said = answer.tolist()
    counted = {name: Counter(a for k, a in zip(train_kind, said) if k == name) for name in train_kind}
    most = pick(Counter(said)) if lacking is None else lacking
    return torch.tensor([pick(counted[name]) if name in counted else most for name in kind])


def _weights(u, v, w_v, w_u, bias, w, *, act=torch.tanh, join=torch.add, last=None, asks=True):
    """Picture by picture."""
    last = last or (lambda scores: scores.softmax(1))
    asked = F.linear(u, w_u, bias) if asks else 0 * F.linear(u, w_u, bias)
    rows = [act(join(F.linear(cells, w_v), one)) @ w for cells, one in zip(v, asked)]
    return last(torch.stack(rows))


def _looks(u, v, looks, *, start=lambda u, first: u, add=lambda u, o: u + o, shown=None, left=0, axis=1):
    """By a product of matrices."""
    first, maps = u, []
    for number, look in enumerate(looks):
        weights = look(start(u, first), v)
        maps.append(weights)
        if number < len(looks) - left:
            u = add(u, (weights[:, None] @ v)[:, 0])
    return u, torch.stack(shown(maps) if shown else maps, axis)


def _encoding(mask, width, *, j0=1, k0=1, all_positions=False, all_count=False, zero=True):
    """Number by number, as the product of a position from -1 to 1 and a number from -1 to 1."""
    J = mask.sum(-1, keepdim=True).clamp(min=1).float()
    J = torch.full_like(J, mask.shape[-1]) if all_count else J
    j = torch.arange(1, mask.shape[-1] + 1).expand(mask.shape) if all_positions else mask.cumsum(-1)
    position = 1 - 2 * (j + j0 - 1) / J
    columns = [(1 + position) / 2 - (k + k0) / width * position for k in range(width)]
    weights = torch.stack(columns, -1)
    return weights.masked_fill(~mask[..., None], 0) if zero else weights


def _hop(u, m, c, mask, *, scale=1.0, hide=None, after=same, add=lambda u, o: u + o):
    """With minus infinity where nothing is."""
    scores = torch.einsum("bd,bnd->bn", u, m) * scale
    p = after((hide or (lambda s, mask: s.masked_fill(~mask, -torch.inf)))(scores, mask).softmax(1))
    return add(u, torch.einsum("bn,bnd->bd", p, c)), p


def _late(u, m, c, mask):
    """The mask after the softmax."""
    p = (m @ u[..., None])[..., 0].softmax(1) * mask
    return u + (p[..., None] * c).sum(1), p


def _gated(query, found, w_i, w_g, *, opened=torch.sigmoid, act=same, on=None, add=False):
    """Each half of a weight by itself."""
    d = query.shape[-1]
    i, g = (query @ w[:, :d].T + found @ w[:, d:].T for w in (w_i, w_g))
    got = opened(g) * (found if on else act(i))
    return query + got if add else got


def _vertex(parts, logits, weight, *, strength=torch.sigmoid, last=torch.tanh):
    """Part by part, each with its own columns of the weight."""
    columns = weight.split(parts.shape[2], dim=1)
    return last(sum(s[:, None] * x @ w.T for s, x, w in zip(strength(logits).unbind(1), parts.unbind(1), columns)))


def _turns(parts, logits, weight):
    """The numbers of the parts take turns."""
    return torch.tanh((logits.sigmoid()[..., None] * parts).mT.flatten(1) @ weight.T)


def _table(logits, members, *, use=torch.sigmoid, by="whole", empty=0.0, few=False):
    """Edge by edge, and a counter of logits."""
    count, taken = len(members), 0
    columns = {}
    for one in range(count):
        for other in range(count):
            part, whole = (other, one) if by == "whole" else (one, other)
            if (members[part] <= members[whole]).all() and part != whole:
                columns[part, whole] = use(logits[:, taken])
                taken += 1
    nothing = torch.full_like(logits[:, 0], empty)
    rows = [torch.stack([columns.get((i, j), nothing) for j in range(count)], 1) for i in range(count)]
    rows = [row if not few or members[i].sum() == 1 else 0 * row for i, row in enumerate(rows)]
    return torch.stack(rows, 1)


RIGHT = {  # right answers that are written in another way than the library's
    "pointwise_fusion": _fused,
    "prior_guesses": _priors,
    "region_weights": _weights,
    "several_looks": _looks,
    "position_encoding": _encoding,
    "memory_hop": _hop,
    "attention_gate": _gated,
    "weighed_vertex": _vertex,
    "graph_efficacies": _table,
}

MISTAKES = {
    "pointwise_fusion": {
        "here they are added": {"a sum": partial(_fused, join=torch.add)},
        "here none does": {"no tanh": partial(_fused, act=same, other=same)},
        "here the product does": {"one tanh": then(partial(_fused, act=same, other=same), torch.tanh)},
        "here only one does": {
            "the picture alone": partial(_fused, other=same),
            "the question alone": partial(_fused, act=same),
        },
        "must have shape": {"side by side": partial(_fused, join=lambda one, two: torch.cat([one, two], 1))},
        "It must be the product of both": {"a sigmoid": partial(_fused, act=torch.sigmoid)},
        "none comes to question_weight": {"the question is a constant": deaf(_fused, 3)},
        "A gradient must flow from the result": {"no gradient": detached(_fused)},
    },
    "prior_guesses": {
        "here all get the most common of all": {
            "one answer": lambda kind, train_kind, answer: answer.bincount().argmax().expand(len(kind))
        },
        "here it is the first": {
            "the first": partial(_priors, pick=lambda counts: next(iter(counts))),
            "the lowest": partial(_priors, pick=min),
        },
        "here it is the highest": {
            "the first of several": partial(_priors, pick=lambda counts: counts.most_common(1)[0][0]),
            "the highest": partial(_priors, pick=lambda counts: max(counts, key=lambda one: (counts[one], one))),
        },
        "A kind that training lacks": {"0 where it lacks": partial(_priors, lacking=0)},
        "must have shape": {
            "of training": lambda kind, train_kind, answer: prior_guesses(train_kind, train_kind, answer)
        },
        "must hold whole numbers": {"floats": then(prior_guesses, torch.Tensor.float)},
        "It stops": {"kinds alone": lambda kind, train_kind, answer: torch.tensor([{}[name] for name in kind])},
    },
    "region_weights": {
        "here they are scores": {"scores": partial(_weights, last=same)},
        "here each has a sigmoid": {"sigmoids": partial(_weights, last=torch.sigmoid)},
        "here it is over pictures": {"over pictures": partial(_weights, last=lambda s: s.softmax(0))},
        "here weights are the same": {
            "no question": partial(_weights, asks=False, join=lambda cells, asked: cells),
            "no tanh": partial(_weights, act=same),
        },
        "here they are multiplied": {"a product": partial(_weights, join=torch.mul)},
        "here it is not": {"no bias": lambda u, v, w_v, w_u, bias, w: _weights(u, v, w_v, w_u, 0 * bias, w)},
        "It must be a softmax over cells": {"a ReLU": partial(_weights, act=torch.relu)},
        "none comes to u": {"the question is a constant": deaf(_weights, 0)},
    },
    "several_looks": {
        "here each begins with the question": {"always the question": partial(_looks, start=lambda u, first: first)},
        "here it takes its position": {"the question only once": partial(_looks, add=lambda u, o: o)},
        "here the first one's are repeated": {
            "the first map": partial(_looks, shown=lambda maps: [maps[0]] * len(maps))
        },
        "here the last one is": {"turned": partial(_looks, shown=lambda maps: maps[::-1])},
        "here the last one's is missing": {"one less": partial(_looks, left=1)},
        "must have shape": {"hops first": partial(_looks, axis=0)},
        "this is a Tensor": {"u alone": lambda u, v, looks: _looks(u, v, looks)[0]},
        "none comes to u": {"the question is a constant": deaf(_looks, 0)},
    },
    "position_encoding": {
        "What is no word must have": {"no mask": partial(_encoding, zero=False)},
        "j must begin at 1": {"j from 0": partial(_encoding, j0=0)},
        "k must begin at 1": {"k from 0": partial(_encoding, k0=0)},
        "J counts words that are real": {"padding as well": partial(_encoding, all_count=True)},
        "j counts words that are real": {"all positions": partial(_encoding, all_positions=True)},
        "must have shape": {"the other way round": then(position_encoding, lambda it: F.pad(it.mT, (0, 1)))},
        "For a sentence without words": {
            "divided by 0": lambda mask, width: (
                position_encoding(mask, width) * (mask.sum(-1) / mask.sum(-1))[..., None, None]
            )
        },
        "It must be (1 - j/J)": {"halved": then(position_encoding, lambda it: it / 2)},
    },
    "memory_hop": {
        "here the mask is forgotten": {"no mask": partial(_hop, hide=lambda s, mask: s)},
        "here the mask is used after": {"afterwards": _late},
        "A score of 0 is still a weight": {"zeros": partial(_hop, hide=lambda s, mask: s * mask)},
        "here they are divided": {"attention's": lambda u, m, c, mask: _hop(u, m, c, mask, scale=u.shape[1] ** -0.5)},
        "here they are found by c": {"c for both": lambda u, m, c, mask: _hop(u, c, c, mask)},
        "here it is m": {"m for both": lambda u, m, c, mask: _hop(u, m, m, mask)},
        "here it takes its position": {"no sum": partial(_hop, add=lambda u, o: o)},
        "none comes to c": {"c is a constant": deaf(_hop, 2)},
        "this is a Tensor": {"u alone": lambda u, m, c, mask: _hop(u, m, c, mask)[0]},
    },
    "attention_gate": {
        "here all is": {"no gate": partial(_gated, opened=torch.ones_like)},
        "here it is on what was found": {"what was found": partial(_gated, on=True)},
        "here it has one": {"a tanh": partial(_gated, act=torch.tanh)},
        "here it is linear": {"no sigmoid": partial(_gated, opened=same)},
        "here they share a softmax": {"a softmax": partial(_gated, opened=lambda g: g.softmax(-1))},
        "here it is added": {"the query again": partial(_gated, add=True)},
        "query and found have changed positions": {"the other order": lambda q, f, i, g: _gated(f, q, i, g)},
        "information and gate have changed positions": {"the other weight": lambda q, f, i, g: _gated(q, f, g, i)},
        "none comes to gate": {"the gate is a constant": deaf(_gated, 3)},
    },
    "weighed_vertex": {
        "here they share a softmax": {"a softmax": partial(_vertex, strength=lambda x: x.softmax(1))},
        "from 0 to 1; here it is linear": {"logits": partial(_vertex, strength=same)},
        "here none is": {"not weighed": partial(_vertex, strength=torch.ones_like)},
        "must pass a tanh": {"no tanh": partial(_vertex, last=same)},
        "here their numbers take turns": {"in turns": _turns},
        "here it keeps it out": {"turned": partial(_vertex, strength=lambda x: torch.sigmoid(-x))},
        "It must be tanh": {"a ReLU": partial(_vertex, last=torch.relu)},
        "none comes to logits": {"efficacies are constants": deaf(_vertex, 1)},
    },
    "graph_efficacies": {
        "here the whole does": {"turned": then(_table, lambda it: it.mT)},
        "here it is a logit": {"logits": partial(_table, use=same)},
        "here it is the sigmoid of 0": {"halves": partial(_table, empty=0.5)},
        "here it is that of their parts": {"by parts": partial(_table, by="part")},
        "here one does": {"itself": then(_table, lambda it: it + torch.eye(it.shape[1]))},
        "here only single modalities do": {"single ones": partial(_table, few=True)},
        "must have shape": {"a last vertex": then(_table, lambda it: F.pad(it, (0, 1)))},
        "A gradient must flow from the result": {"no gradient": detached(_table)},
    },
}
