"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import detached, then

from mmlearn.layers.gumbel import relaxed_choice
from mmlearn.objectives.causal_masked import put_back
from mmlearn.objectives.codes import commitment, copied_gradient, divergence_from_even, moving_entries


def _moving(count, total, n, s, decay, *, keep=None, take=lambda g: 1 - g, last=lambda c, t, old: t / c[:, None]):
    """Averages of counts and sums, or what differs in a single position."""
    g = decay if keep is None else keep(decay)
    c, t = g * count + take(g) * n, g * total + take(g) * s
    return c, t, last(c, t, count)


def _of_quotients(count, total, n, s, decay):
    c, t, _ = moving_entries(count, total, n, s, decay)
    new = s / n[:, None].clamp(min=1)
    return c, t, decay * total / count[:, None] + (1 - decay) * new


def _never_empty(count, total, n, s, decay):
    """A count that is kept away from 0."""
    c, t, _ = moving_entries(count, total, n, s, decay)
    return c, t, t / c.clamp(min=1)[:, None]


def _weight(
    one, two, layer, *, size=lambda g: g.norm(), join=lambda a, b: a / (b + 1e-4), cut=lambda w: w.clamp(max=1e4)
):
    """The quotient of two gradients, or what differs in a single position."""
    grads = [torch.autograd.grad(loss, layer, retain_graph=True)[0] for loss in (one, two)]
    return cut(join(*map(size, grads))).detach()


def _filled_gradient(one, two, layer):
    """By backward(), which leaves something in .grad."""
    lengths = []
    for loss in (one, two):
        layer.grad = None
        loss.backward(retain_graph=True)
        lengths.append(layer.grad.norm())
    return (lengths[0] / (lengths[1] + 1e-4)).clamp(max=1e4).detach()


def _first_span_only(moved, sentinels, end):
    """The second span is left where it is."""
    rows = moved.tolist()
    if sentinels.start not in rows:
        return moved
    position = rows.index(sentinels.start)
    again = rows.index(sentinels.start, position + 1)
    stop = rows.index(end, again)
    kept = [token for token in rows[position + 1 : again] if token not in sentinels]
    return torch.tensor(rows[:position] + rows[again + 1 : stop] + kept)


def _at_the_end(moved, sentinels, end):
    """Spans are left at the end, without their marks."""
    special = torch.tensor([*sentinels, end])
    return moved[~torch.isin(moved, special)]


def _marks_stay(moved, sentinels, end):
    rows, body = moved.tolist(), put_back(moved, sentinels, end).tolist()
    return torch.tensor(body + [end]) if end in rows else moved


def _twice(moved, sentinels, end):
    whole = put_back(moved, sentinels, end)
    behind = _at_the_end(moved, sentinels, end)
    return torch.cat([whole, behind[-1:]]) if end in moved.tolist() else whole


def _by_loop(moved, sentinels, end):
    """Token by token, from the end."""
    rows, spans = moved.tolist(), {}
    while rows and rows[-1] == end:
        position = max(i for i, token in enumerate(rows) if token in sentinels)
        spans[rows[position]] = rows[position + 1 : -1]
        rows = rows[:position]
    return torch.tensor([token for position in rows for token in spans.get(position, [position])])


RIGHT = {  # right answers that are written in another way than the library's
    "copied_gradient": lambda z, entry: entry.detach() + z - z.detach(),
    "commitment": lambda z, entry: F.mse_loss(entry.detach(), z),
    "moving_entries": _moving,
    "dead_entries": lambda count, least: count * len(count) < least * count.sum(),
    "relaxed_choice": lambda logits, noise, t: (
        (logits + noise) / t - ((logits + noise) / t).logsumexp(-1, True)
    ).exp(),
    "divergence_from_even": lambda logits: (
        math.log(logits.shape[-1]) - torch.distributions.Categorical(logits=logits).entropy()
    ),
    "adaptive_weight": _weight,
    "put_back": _by_loop,
}

MISTAKES = {
    "copied_gradient": {
        "Going forward it must be the entries; these are the vectors": {
            "the other way round": lambda z, entry: entry + (z - entry).detach(),
            "nothing is chosen": lambda z, entry: z + 0 * entry,
        },
        "not the middle of both": {"half way": lambda z, entry: z + ((entry - z) / 2).detach()},
        "The entries must not learn": {
            "nothing stopped": lambda z, entry: z + (entry - z),
            "half of it stopped": lambda z, entry: z + entry - z.detach(),
        },
        "radient": {
            "everything stopped": detached(copied_gradient),
            "the entries": lambda z, entry: entry.detach() + 0 * z,
        },
    },
    "commitment": {
        "this is the sum": {"sum": lambda z, entry: (z - entry.detach()).square().sum()},
        "The mean must be over the numbers of a vector, too": {
            "a sum over numbers": lambda z, entry: (z - entry.detach()).square().sum(1).mean()
        },
        "The distance must be squared": {
            "root": lambda z, entry: (z - entry.detach()).norm(dim=1).mean(),
            "absolute": lambda z, entry: (z - entry.detach()).abs().mean(),
        },
        "It must be the mean of": {"a half": lambda z, entry: commitment(z, entry) / 2},
        "The entries must not move": {"both move": lambda z, entry: (z - entry).square().mean()},
        "are used in each other's place": {
            "the entries alone move": lambda z, entry: (z.detach() - entry).square().mean() + 0 * z.sum()
        },
    },
    "moving_entries": {
        "decay must be the share of the old": {"the other way": partial(_moving, keep=lambda g: 1 - g)},
        "Old and new shares must sum to 1": {"added": partial(_moving, take=lambda g: 1)},
        "The sum must move by the same rule": {
            "the sum is added": lambda c, t, n, s, g: (
                (new := moving_entries(c, t, n, s, g))[0],
                g * t + s,
                (g * t + s) / new[0][:, None],
            )
        },
        "not an average of quotients": {"means are averaged": _of_quotients},
        "this is a sum": {"not divided": partial(_moving, last=lambda c, t, old: t)},
        "this divides by the old count": {"old count": partial(_moving, last=lambda c, t, old: t / old[:, None])},
        "It must stay where it is": {"a count of at least 1": _never_empty},
    },
    "dead_entries": {
        "The least must be a part of the even share": {"a number of choices": lambda count, least: count < least},
        "True must be dead": {"alive": lambda count, least: count >= least * count.mean()},
        "not with the most": {"of the largest": lambda count, least: count < least * count.max()},
        "not with the sum": {"of all": lambda count, least: count < least * count.sum()},
        "Dead is below": {"the median": lambda count, least: count < least * count.median()},
        "Nothing must be dead": {"or equal": lambda count, least: count <= least * count.mean()},
    },
    "relaxed_choice": {
        "Each row must sum to 1": {
            "over the rows": lambda z, n, t: ((z + n) / t).softmax(0) if z.ndim > 1 else ((z + n) / t).softmax(-1)
        },
        "The noise must count": {"no noise": lambda z, n, t: relaxed_choice(z, 0 * n, t)},
        "The temperature must divide the noise": {"noise behind": lambda z, n, t: (z / t + n).softmax(-1)},
        "A low temperature must sharpen": {"times": lambda z, n, t: ((z + n) * t).softmax(-1)},
        "It must be softmax": {
            "noise taken off": lambda z, n, t: ((z - n) / t).softmax(-1),
            "the root": lambda z, n, t: ((z + n) / t**0.5).softmax(-1),
        },
        "It must be the choice that the noise draws": {
            "not below 0.1": lambda z, n, t: relaxed_choice(z, n, max(t, 0.3))
        },
    },
    "divergence_from_even": {
        "this is the entropy": {"entropy": lambda z: math.log(z.shape[-1]) - divergence_from_even(z)},
        "here ln k is missing": {"no ln k": lambda z: divergence_from_even(z) - math.log(z.shape[-1])},
        "this has the other sign": {"negative": lambda z: -divergence_from_even(z)},
        "turn it round": {"backward": lambda z: -(z.log_softmax(-1) + math.log(z.shape[-1])).mean(-1)},
        "in nats, not in bits": {"bits": then(divergence_from_even, lambda x: x / math.log(2))},
        "this one holds NaN": {
            "a logarithm of 0": lambda z: (z.softmax(-1) * (z.softmax(-1).log() + math.log(z.shape[-1]))).sum(-1)
        },
    },
    "adaptive_weight": {
        "It is upside down": {"upside down": partial(_weight, join=lambda a, b: b / (a + 1e-9))},
        "Compare gradients, not losses": {"of losses": lambda one, two, layer: (one / two).detach()},
        "this is its square": {"squared": partial(_weight, size=lambda g: g.square().sum(), join=lambda a, b: a / b)},
        "It must be ‖∇ pixels‖": {
            "largest numbers": partial(_weight, size=lambda g: g.abs().max()),
            "means": partial(_weight, size=lambda g: g.abs().mean()),
            "at least 1": partial(_weight, cut=lambda w: w.clamp(1, 1e4)),
        },
        "The layer's .grad must stay empty": {"backward": _filled_gradient},
        "It must be at most 10,000": {"no bound": partial(_weight, cut=lambda w: w)},
    },
    "put_back": {
        "No end of a span must be left": {"the end stays": _marks_stay},
        "Tokens are lost": {"the first span alone": _first_span_only},
        "Nothing must stand twice": {"behind it once more": _twice},
        "Each span must be where its own sentinel stands": {"at the end": _at_the_end},
    },
}
