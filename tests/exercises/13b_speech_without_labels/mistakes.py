"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import detached, from_global_state, from_own_seed

from mmlearn.layers.gumbel import straight_through
from mmlearn.objectives import distractor_contrast, mask_spans, masked_cluster, sample_distractors

# What is hidden.


def _spans(
    real,
    *,
    generator,
    probability=0.065,
    length=10,
    spans=lambda p, n, length, u: (p * n + u).floor().clamp(min=1),
    most=lambda n, length: (n - 1).clamp(min=0) // length,
    last=lambda n, length, s: n - length,
    hide=None,
):
    """Spans by the order of random numbers, or by a rule that differs in a single position."""
    n = real.sum(1)
    chance = torch.rand(len(real), 1 + real.shape[1], generator=generator)
    wanted = torch.minimum(spans(probability, n, length, chance[:, 0]), most(n, length))
    order = chance[:, 1:].masked_fill(torch.arange(real.shape[1]) > last(n, length, real.shape[1])[:, None], 2.0)
    starts = order.argsort(1).argsort(1) < wanted[:, None]
    starts = starts & (order < 2)
    hidden = starts.clone()
    for later in range(1, hide or length):
        hidden[:, later:] |= starts[:, : hidden.shape[1] - later]
    return hidden


def _each_by_a_coin(real, *, generator, probability=0.065, length=10):
    """Each frame begins a span by chance, so that their number is chance as well."""
    n = real.sum(1)[:, None]
    starts = (torch.rand(real.shape, generator=generator) < probability) & (torch.arange(real.shape[1]) <= n - length)
    hidden = starts.clone()
    for later in range(1, length):
        hidden[:, later:] |= starts[:, :-later]
    one = _spans(real, generator=generator, probability=0, length=length)
    return torch.where(starts.any(1, keepdim=True), hidden, one)


def _distractors(
    masked,
    count,
    *,
    generator,
    allowed=lambda masked: masked,
    own=True,
    each=True,
    shape=lambda b, s, count: (b, s, count),
):
    """Evenly among the hidden frames of a clip but its own, or by a rule that differs in a single position."""
    b, s = masked.shape
    result = torch.zeros(b, s, count, dtype=torch.long)
    for i in range(b):
        for j in range(s):
            choice = allowed(masked)[i].nonzero()[:, 0]
            choice = choice[choice != j] if own else choice
            if len(choice):
                size = (count,) if each else (1,)
                drawn = torch.randint(len(choice), size, generator=generator)
                result[i, j] = choice[drawn].expand(count)
    return result


def _numbers_not_positions(masked, count, *, generator):
    """The how-manieth hidden frame, and not where it is."""
    positions = sample_distractors(masked, count, generator=generator)
    number = masked.long().cumsum(1) - 1
    return number.gather(1, positions.flatten(1)).view_as(positions)


def _moved_by_one(masked, count, *, generator):
    """Where its own position was drawn, the next hidden one is taken, which so comes twice as often."""
    drawn = _distractors(masked, count, generator=generator, own=False)
    hidden = masked.sum(1)
    positions = (~masked).int().argsort(dim=1, stable=True)
    number = masked.long().cumsum(1) - 1
    following = positions.gather(1, (number + 1) % hidden[:, None].clamp(min=1))
    return torch.where(drawn == torch.arange(masked.shape[1])[:, None], following[..., None], drawn)


def _one_draw_for_all(masked, count, *, generator):
    """The same random numbers for every frame of a clip."""
    hidden = masked.sum(1)[:, None, None]
    positions, own = (~masked).int().argsort(dim=1, stable=True), (masked.int().cumsum(1) - 1)[:, :, None]
    drawn = (torch.rand(len(masked), 1, count, generator=generator) * (hidden - 1)).long()
    other = (drawn + (drawn >= own)).clamp(0, masked.shape[1] - 1)
    return positions.gather(1, other.flatten(1)).view_as(other)


# What is guessed.


def _contrast(
    context,
    target,
    codes,
    distractor,
    masked,
    temperature=0.1,
    *,
    unit=lambda x: F.normalize(x, dim=-1),
    scale=lambda x, t: x / t,
    leave_out=lambda same: same.all(-1),
    low=-torch.inf,
    with_target=True,
    mean=lambda loss, masked: loss[masked].sum() / masked.sum().clamp(min=1),
):
    similarity = scale(unit(context) @ unit(target).mT, temperature)
    own = similarity.diagonal(dim1=1, dim2=2)[..., None]
    others = torch.stack([row[position] for row, position in zip(codes, distractor)])
    left = leave_out(others == codes[:, :, None])
    other = similarity.gather(2, distractor).masked_fill(left, low)
    logits = torch.cat([own, other], 2) if with_target else other
    return mean(logits.logsumexp(-1) - own[..., 0], masked)


def _clusters(
    logits,
    cluster,
    masked,
    alpha=1.0,
    *,
    hidden=lambda masked, real: masked & real,
    seen=lambda masked, real: ~masked & real,
    mean=lambda loss, where: loss[where].sum() / where.sum().clamp(min=1),
    mix=lambda a, h, s: a * h + (1 - a) * s,
):
    real = cluster != -100
    loss = F.cross_entropy(logits.mT, cluster.clamp(min=0), reduction="none")
    return mix(alpha, mean(loss, hidden(masked, real)), mean(loss, seen(masked, real)))


def _mean_of_means(loss, where):
    rows = [row[m].mean() for row, m in zip(loss, where) if m.any()]
    return torch.stack(rows).mean() if rows else loss.sum() * 0


def _choice(logits, noise, temperature, *, soft=lambda z, n, t: ((z + n) / t).softmax(-1), pick=None):
    """One-hot of the largest, with the gradient of ``soft``."""
    p = soft(logits, noise, temperature)
    hard = F.one_hot((logits + noise if pick is None else pick(logits, noise)).argmax(-1), logits.shape[-1]).float()
    return hard + (p - p.detach())


def _perplexity(probability, *, log=torch.log, first=lambda x: x.mean(0), last=lambda x: x):
    """The perplexity of the mean, or what differs in a single position."""
    mean = first(probability)
    return last(log(mean).masked_fill(mean == 0, 0).mul(-mean).sum(-1).exp())


RIGHT = {  # right answers that are written in another way than the library's
    "code_perplexity": lambda p: torch.exp(-torch.xlogy(p.mean(0), p.mean(0)).sum(-1)),
    "mask_spans": _spans,
    "sample_distractors": _distractors,
    "straight_through": _choice,
    "distractor_contrast": _contrast,
    "masked_cluster": _clusters,
}

MISTAKES = {
    "code_perplexity": {
        "must use all entries together": {
            "mean of entropies": lambda p: _perplexity(p, first=lambda x: x).log().mean(0).exp(),
            "mean of perplexities": lambda p: _perplexity(p, first=lambda x: x).mean(0),
        },
        "1 must be in use": {
            "the entropy itself": lambda p: _perplexity(p, last=torch.log),
            "a share": lambda p: _perplexity(p) / p.shape[-1],
        },
        "even ones all must be": {
            "logarithm to base 2": lambda p: _perplexity(p, log=torch.log2),
            "sign forgotten": lambda p: 1 / _perplexity(p),
        },
        "must have shape (2,)": {"all codebooks together": lambda p: _perplexity(p).mean()},
        "must be finite": {"0 ln 0": lambda p: (-(p.mean(0) * p.mean(0).log()).sum(-1)).exp()},
    },
    "mask_spans": {
        "frames in a row must be hidden": {
            "single frames": partial(_spans, hide=1),
            "spans over the end": partial(_spans, last=lambda n, length, s: n - 1),
            "visible instead": lambda real, **more: real & ~mask_spans(real, **more),
        },
        "Padding must never be hidden": {
            "padding too": partial(_spans, last=lambda n, length, s: torch.full_like(n, s - length))
        },
        "Spans must begin anywhere where they fit": {
            "the last position never": partial(_spans, last=lambda n, length, s: n - length - 1)
        },
        "At least one span of each clip must be hidden": {
            "possibly none": partial(_spans, spans=lambda p, n, length, u: (p * n + u).floor())
        },
        "must begin a span; here it is": {"each frame by a coin": _each_by_a_coin},
        "about 49 % of a long clip must be hidden; here it is": {
            "a share of frames hidden": partial(
                _spans, spans=lambda p, n, length, u: (p * n / length + u).floor().clamp(min=1)
            )
        },
        "so 1 or 2 by chance": {
            "always rounded down": partial(_spans, spans=lambda p, n, length, u: (p * n + 0 * u).floor().clamp(min=1)),
            "of the padded clip": lambda real, *, generator, probability=0.065, length=10: _spans(
                real,
                generator=generator,
                probability=probability,
                length=length,
                spans=lambda p, n, length, u: (p * real.shape[1] + u).floor().clamp(min=1),
            ),
        },
        "Something of each clip must stay visible": {
            "everything": partial(_spans, most=lambda n, length: (n - length + 1).clamp(min=0))
        },
        "left whole": {
            "a clip of one span": partial(
                _spans, most=lambda n, length: torch.where(n == length, 1, (n - 1).clamp(min=0) // length)
            )
        },
        "The same seed must give the same result": {"torch's own generator": from_global_state(mask_spans)},
        "Another seed must give another result": {"a seed of its own": from_own_seed(mask_spans)},
    },
    "sample_distractors": {
        "must never be its own distractor": {"its own too": partial(_distractors, own=False)},
        "Distractors must be hidden frames of the same clip": {
            "any frame": partial(_distractors, allowed=lambda masked: torch.ones_like(masked)),
            "frames that are seen": partial(_distractors, allowed=lambda masked: ~masked),
            "of other clips": partial(_distractors, allowed=lambda masked: masked.roll(1, 0)),
            "numbers, not positions": _numbers_not_positions,
        },
        "Places are of frames of the same clip": {
            "positions in the whole batch": lambda masked, count, *, generator: (
                sample_distractors(masked, count, generator=generator)
                + masked.shape[1] * torch.arange(len(masked))[:, None, None]
            )
        },
        "must be drawn one by one; here all are the same": {
            "one for all": partial(_distractors, each=False),
            "its neighbour": lambda masked, count, *, generator: (
                ((~masked).int().argsort(dim=1, stable=True))
                .gather(1, (masked.long().cumsum(1) % masked.sum(1, keepdim=True)))[..., None]
                .expand(-1, -1, count)
            ),
        },
        "Each other hidden frame must be as likely": {"moved by one": _moved_by_one},
        "Each frame must draw its own distractors": {"one draw for all frames": _one_draw_for_all},
        "The same seed must give the same result": {"torch's own generator": from_global_state(sample_distractors)},
        "Another seed must give another result": {"a seed of its own": from_own_seed(sample_distractors)},
        "must have shape": {
            "hidden frames alone": lambda masked, count, *, generator: sample_distractors(
                masked, count, generator=generator
            )[masked]
        },
    },
    "straight_through": {
        "Going forward it must be one-hot": {"soft": lambda z, n, t: ((z + n) / t).softmax(-1)},
        "A gradient must flow from the result": {
            "hard alone": lambda z, n, t: F.one_hot((z + n).argmax(-1), z.shape[-1]).float(),
            "all detached": detached(straight_through),
        },
        "The choice must be a sample": {"no noise": lambda z, n, t: straight_through(z, 0 * n, t)},
        "The choice must be the largest of logits + noise": {
            "noise taken away": partial(_choice, pick=lambda z, n: z - n),
            "noise alone": partial(_choice, pick=lambda z, n: n),
        },
        "Going back it must be a softmax, not the identity": {
            "the identity going back": partial(_choice, soft=lambda z, n, t: z)
        },
        "Going back it must have the gradient of softmax(logits + noise)": {
            "no noise going back": partial(_choice, soft=lambda z, n, t: (z / t).softmax(-1)),
            "hard times soft": lambda z, n, t: (
                (p := ((z + n) / t).softmax(-1)) / p.detach() * F.one_hot((z + n).argmax(-1), z.shape[-1])
            ),
            "the wrong one detached": lambda z, n, t: (
                F.one_hot((z + n).argmax(-1), z.shape[-1])
                - ((z + n) / t).softmax(-1)
                + ((z + n) / t).softmax(-1).detach()
            ),
        },
        "Going back the softmax must have temperature": {
            "multiplied by the temperature": partial(_choice, soft=lambda z, n, t: ((z + n) * t).softmax(-1)),
            "noise not divided": partial(_choice, soft=lambda z, n, t: (z / t + n).softmax(-1)),
            "no temperature": partial(_choice, soft=lambda z, n, t: (z + n).softmax(-1)),
        },
        "must have shape": {"which it is": lambda z, n, t: (z + n).argmax(-1)},
    },
    "distractor_contrast": {
        "it must cost ln(1 + k)": {
            "the target is no candidate": partial(_contrast, with_target=False),
            "a sum": partial(_contrast, mean=lambda loss, m: loss[m].sum()),
        },
        "How long vectors are must not matter": {"products": partial(_contrast, unit=lambda x: x)},
        "frames that are not hidden must not matter": {
            "every frame": partial(_contrast, mean=lambda loss, m: (loss * (1 if m.any() else 0)).mean())
        },
        "-log softmax(cosine / 0.1) at the target": {
            "multiplied by the temperature": partial(_contrast, scale=lambda x, t: x * t),
            "no temperature": partial(_contrast, scale=lambda x, t: x),
        },
        "With temperature 0.5": {"a fixed temperature": partial(_contrast, scale=lambda x, t: x / 0.1)},
        "here it is the other way": {
            "exchanged": lambda c, q, *more, **named: distractor_contrast(q, c, *more, **named)
        },
        "with the codes of the target is the target, and must be left out": {
            "distractors that are the target": partial(
                _contrast, leave_out=lambda same: torch.zeros_like(same[..., 0])
            ),
            "0 instead of -inf": partial(_contrast, low=0.0),
        },
        "Only a distractor of which all codes are the target's": {
            "one codebook is enough": partial(_contrast, leave_out=lambda same: same.any(-1))
        },
        "Its result must be finite": {"nothing hidden": partial(_contrast, mean=lambda loss, m: loss[m].mean())},
        "A gradient must flow from the result": {"no gradient": detached(distractor_contrast)},
        "must have shape ()": {"one loss a frame": partial(_contrast, mean=lambda loss, m: loss)},
    },
    "masked_cluster": {
        "Only hidden frames must count": {
            "every frame": partial(_clusters, hidden=lambda masked, real: real & masked.any())
        },
        "here it is those that are seen": {
            "frames that are seen": partial(_clusters, hidden=lambda masked, real: ~masked & real & masked.any()),
            "alpha for what is seen": partial(_clusters, mix=lambda a, h, s: (1 - a) * h + a * s),
        },
        "Logits that know nothing must cost ln c": {
            "divided by all frames": partial(_clusters, mean=lambda loss, where: (loss * where).mean()),
            "a sum": partial(_clusters, mean=lambda loss, where: loss[where].sum()),
        },
        "mean cross-entropy of hidden frames": {"a mean of means": partial(_clusters, mean=_mean_of_means)},
        "padding, of cluster -100, is none of them": {
            "padding is seen": partial(_clusters, seen=lambda masked, real: ~masked),
            "α = 1 always": lambda z, k, m, alpha=1.0: masked_cluster(z, k, m),
            "hidden added whole": partial(_clusters, mix=lambda a, h, s: h + (1 - a) * s if a < 1 else h),
        },
        "times the seen mean": {"α squared": partial(_clusters, mix=lambda a, h, s: a**2 * h + (1 - a**2) * s)},
        "must be finite": {"nothing hidden": partial(_clusters, mean=lambda loss, where: loss[where].mean())},
        "A gradient must flow from the result": {"no gradient": detached(masked_cluster)},
        "must have shape ()": {"one loss a frame": partial(_clusters, mean=lambda loss, where: loss * where)},
    },
}
