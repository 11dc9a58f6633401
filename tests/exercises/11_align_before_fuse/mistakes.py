"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import detached, from_global_state, from_own_seed, then

from mmlearn.models.align.pair_queue import queue_positions
from mmlearn.objectives import distilled_targets, hard_negatives, soft_cross_entropy
from mmlearn.objectives.distillation import momentum_update, momentum_weights

# A teacher that is one's own past.


def _in_position(slow, online, momentum):
    slow.lerp_(online.detach(), 1 - momentum)
    return slow


def _follow(weights, momentum):
    slow = weights[0]
    for online in weights[1:]:
        slow = momentum * slow + (1 - momentum) * online
    return slow


def _from_zero(weights, momentum):
    return momentum_weights(torch.cat([torch.zeros_like(weights[:1]), weights]), momentum)


def _divergence(logits, target):
    return F.kl_div(logits.log_softmax(-1), target, reduction="batchmean")


def _targets(
    teacher,
    positives,
    alpha,
    *,
    believe=lambda z: z.softmax(-1),
    label=lambda fits: fits / fits.sum(1, keepdim=True),
    mix=lambda y, z, alpha: alpha * z + (1 - alpha) * y,
):
    """Distilled targets, or what differs in a single position."""
    return mix(label(positives.detach()), believe(teacher.detach()), alpha)


def _mixed_logits(teacher, positives, alpha):
    """The label is mixed into the logits, and only then comes the softmax."""
    label = positives / positives.sum(1, keepdim=True)
    return (alpha * teacher.detach() + (1 - alpha) * label).softmax(-1)


def _teacher_where_it_fits(teacher, positives, alpha):
    """The label's share goes to those that fit by what the teacher believes, not evenly."""
    believed = teacher.detach().masked_fill(~positives, -torch.inf).softmax(-1)
    return alpha * teacher.detach().softmax(-1) + (1 - alpha) * believed


def _with_gradient(teacher, positives, alpha):
    return alpha * teacher.softmax(-1) + (1 - alpha) * positives / positives.sum(1, keepdim=True)


def _positions(pointer, n, size, *, first=0, around=torch.remainder, move=lambda p, n, size: (p + n) % size):
    positions = pointer + first + torch.arange(n)
    return around(positions, size), move(pointer, n, size)


def _starts_again(pointer, n, size):
    """Where rows do not fit, they go to the front."""
    return queue_positions(pointer if int(pointer) + n <= size else torch.zeros_like(pointer), n, size)


def _pointer_in_position(pointer, n, size):
    positions = (pointer + torch.arange(n)) % size
    pointer += n
    pointer %= size
    return positions, pointer


# Pairs that look right.


def _drawn(probability, generator):
    return torch.multinomial(probability, 1, generator=generator)[:, 0]


def _logits(logits=lambda s, fits: s.masked_fill(fits, -torch.inf), axis=-1):
    """Hard negatives by a softmax of these logits."""
    return lambda s, fits, generator: _drawn(logits(s, fits).softmax(axis), generator)


def _diagonal_only(s, fits):
    return s.masked_fill(torch.eye(*s.shape, dtype=torch.bool), -torch.inf)


def _exp_over_sum(s, fits, generator):
    odds = s.exp() * ~fits
    return _drawn(odds / odds.sum(-1, keepdim=True), generator)


def _its_similarity(s, fits, generator):
    return s.gather(1, hard_negatives(s, fits, generator)[:, None])[:, 0]


RIGHT = {  # right answers that are written in another way than the library's
    "momentum_update": lambda slow, online, m: torch.lerp(online.detach(), slow, m),
    "momentum_weights": torch.no_grad()(_follow),
    "soft_cross_entropy": F.cross_entropy,
    "distilled_targets": _targets,
    "queue_positions": _positions,
    "hard_negatives": _logits(),
}

MISTAKES = {
    "momentum_update": {
        "With momentum 1 the momentum encoder must stay": {
            "shares exchanged": lambda a, x, m: momentum_update(a, x, 1 - m),
            "new is added whole": lambda a, x, m: m * a + x.detach(),
            "the mean": lambda a, x, m: (a + x.detach()) / 2,
            "what is learned now": lambda a, x, m: x.detach(),
            "a fixed momentum": lambda a, x, m: momentum_update(a, x, 0.995),
        },
        "With momentum 0 the momentum encoder must become what is learned now": {
            "old is kept whole": lambda a, x, m: a + (1 - m) * x.detach(),
            "a step away": lambda a, x, m: a - (1 - m) * (x.detach() - a),
        },
        "m times the old weight plus 1 - m times the new": {"squared": lambda a, x, m: momentum_update(a, x, m**2)},
        "must leave its arguments as they are": {"in place": _in_position},
        "It must have no gradient": {"with a gradient": lambda a, x, m: m * a + (1 - m) * x},
        "must have shape (3, 4)": {"one number": then(momentum_update, lambda y: y.mean())},
    },
    "momentum_weights": {
        "With momentum 0 the momentum encoder must be what the last step has learned": {
            "averages before the step": lambda w, m: momentum_weights(w[: max(1, len(w) - 1)], m),
            "a step late": lambda w, m: momentum_weights(torch.cat([w[:1], w[:-1]]), m) if len(w) > 1 else w[0],
        },
        "Before the first step the momentum encoder must stand where the weights start": {"from zero": _from_zero},
        "With momentum 1 the momentum encoder must stay at the start": {
            "corrected for a start at zero": lambda w, m: _from_zero(w, m) / (1 - m ** len(w)) if m < 1 else w.mean(0),
            "the newest first": lambda w, m: momentum_weights(w.flip(0), m),
            "shares exchanged": lambda w, m: momentum_weights(w, 1 - m),
            "the mean of all": lambda w, m: w.mean(0),
            "the last two": lambda w, m: momentum_update(w[-2], w[-1], m) if len(w) > 1 else w[0],
        },
        "steps it must hold m^": {
            "always from the start": lambda w, m: momentum_update(w[0], w[-1], m),
            "skips the first step": lambda w, m: momentum_weights(torch.cat([w[:1], w[2:]]), m),
            "the mean of the steps": lambda w, m: m * w[0] + (1 - m) * w[1:].mean(0) if m and len(w) > 1 else w[-1],
        },
        "It must have no gradient": {"with a gradient": _follow},
        "must have shape (4,)": {
            "all on the way": lambda w, m: torch.stack([momentum_weights(w[: i + 1], m) for i in range(len(w))])
        },
    },
    "soft_cross_entropy": {
        "know nothing must cost ln c": {
            "sum over rows": lambda z, y: len(z) * soft_cross_entropy(z, y),
            "mean over classes": lambda z, y: -(y * z.log_softmax(-1)).mean(),
            "no minus": then(soft_cross_entropy, lambda y: -y),
            "over rows": lambda z, y: -(y * z.log_softmax(0)).sum(1).mean(),
            "yes or no for each": lambda z, y: F.binary_cross_entropy_with_logits(z, y),
            "exchanged": lambda z, y: soft_cross_entropy(y, z),
        },
        "Logits that agree with the target must cost its entropy": {
            "the highest class": lambda z, y: F.cross_entropy(z, y.argmax(1))
        },
        "on one class it must be the plain cross-entropy": {
            "a softmax of the target": lambda z, y: soft_cross_entropy(z, y.softmax(-1)),
            "softmax before": lambda z, y: soft_cross_entropy(z.softmax(-1), y),
        },
        "Logits of many hundreds: Its result must be finite": {
            "log of a softmax": lambda z, y: -(y * z.softmax(-1).log()).sum(1).mean()
        },
        "What is surely wrong must cost hundreds": {
            "a small number inside": lambda z, y: -(y * (z.softmax(-1) + 1e-8).log()).sum(1).mean()
        },
        "this is a divergence, which is 0 there": {"a divergence": _divergence},
        "must have shape ()": {"one loss a row": lambda z, y: F.cross_entropy(z, y, reduction="none")},
        "A gradient must flow from the result": {"no gradient": detached(soft_cross_entropy)},
    },
    "distilled_targets": {
        "With α = 0 it must be the label": {
            "alpha for the label": lambda z, fits, a: distilled_targets(z, fits, 1 - a),
            "mixed before the softmax": _mixed_logits,
        },
        "With α = 1 it must be the teacher's softmax alone": {
            "added": partial(_targets, mix=lambda y, z, alpha: y + alpha * z),
            "logits": partial(_targets, believe=lambda z: z),
            "a sigmoid": partial(_targets, believe=torch.sigmoid),
            "log softmax": partial(_targets, believe=lambda z: z.log_softmax(-1)),
        },
        "these do over the rows": {"over rows": partial(_targets, believe=lambda z: z.softmax(0))},
        "not only its first choice": {
            "the first choice": partial(_targets, believe=lambda z: F.one_hot(z.argmax(1), z.shape[1]).float())
        },
        "A row that several candidates fit must still sum to 1": {
            "label not divided": partial(_targets, label=lambda fits: fits.float()),
            "label divided by columns": partial(_targets, label=lambda fits: fits / fits.sum(0).clamp(min=1)),
        },
        "The label must be spread evenly over all that fit": {
            "the diagonal": lambda z, fits, a: distilled_targets(z, torch.eye(*fits.shape, dtype=torch.bool), a),
            "the label by belief": _teacher_where_it_fits,
        },
        "It must have no gradient": {"with a gradient": _with_gradient},
    },
    "queue_positions": {
        "rows must go to": {
            "one later": partial(_positions, first=1),
            "from the front": lambda p, n, size: (torch.arange(n), (p + n) % size),
        },
        "the oldest must be at": {
            "the pointer stays": partial(_positions, move=lambda p, n, size: p.clone()),
            "the pointer moves by one": partial(_positions, move=lambda p, n, size: (p + 1) % size),
            "the last row written": partial(_positions, move=lambda p, n, size: (p + n - 1) % size),
        },
        "must go round the end of a queue": {
            "beyond the end": partial(_positions, around=lambda x, size: x),
            "all at the end": partial(_positions, around=lambda x, size: x.clamp(max=size - 1)),
            "starts again": _starts_again,
            "one position is never used": partial(_positions, around=lambda x, size: x % (size - 1)),
        },
        "The pointer must go round as well": {
            "the pointer runs away": partial(_positions, move=lambda p, n, size: p + n),
            "the pointer begins again": partial(
                _positions, move=lambda p, n, size: torch.where(p + n >= size, 0, p + n)
            ),
        },
        "After the last place the pointer must be 0": {
            "the pointer one too far": partial(
                _positions, move=lambda p, n, size: torch.where(p + n > size, p + n - size, p + n)
            )
        },
        "must leave its arguments as they are": {"in place": _pointer_in_position},
        "It must return positions and pointer": {"positions alone": then(queue_positions, lambda y: y[0])},
        "It must hold whole numbers": {"floats": then(queue_positions, lambda y: tuple(x.float() for x in y))},
    },
    "hard_negatives": {
        "on the diagonal, must never be drawn": {
            "its own too": _logits(lambda s, fits: s),
            "0 instead of -inf": _logits(lambda s, fits: s * ~fits),
            "only what fits": _logits(lambda s, fits: s.masked_fill(~fits, -torch.inf)),
        },
        "Nothing that fits a row must be drawn, also off the diagonal": {"the diagonal only": _logits(_diagonal_only)},
        "likely, not certain; here it is always drawn": {
            "the hardest": lambda s, fits, generator: s.masked_fill(fits, -torch.inf).argmax(1),
            "temperature again": _logits(lambda s, fits: (s / 0.07).masked_fill(fits, -torch.inf)),
        },
        "The same seed must give the same result": {"torch's own generator": from_global_state(hard_negatives)},
        "Another seed must give another result": {"a seed of its own": from_own_seed(hard_negatives)},
        "are equally likely": {"any": lambda s, fits, generator: _drawn((~fits).float(), generator)},
        "over the candidates of a row: the last axis": {
            "over the batch": _logits(axis=0),
            "softmax twice": _logits(
                lambda s, fits: s.masked_fill(fits, -torch.inf).softmax(-1).masked_fill(fits, -torch.inf)
            ),
            "similarities above 0 for odds": lambda s, fits, generator: _drawn(
                (s.clamp(min=0) + 0.01) * ~fits, generator
            ),
        },
        "here it is the other way": {"the least similar": _logits(lambda s, fits: (-s).masked_fill(fits, -torch.inf))},
        "It stops in line": {
            "similarities for odds": lambda s, fits, generator: _drawn(s.masked_fill(fits, 0), generator),
            "exp that overflows": _exp_over_sum,
        },
        "It must hold whole numbers": {"its similarity": _its_similarity},
        "must have shape (8,); this one has (8, 1)": {
            "an axis too many": lambda s, fits, generator: torch.multinomial(
                s.masked_fill(fits, -torch.inf).softmax(-1), 1
            )
        },
    },
}
