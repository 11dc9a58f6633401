"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][name] = (function, fragment)``."""

from functools import partial

import torch
import torch.nn.functional as F

from mmlearn.evaluation import box_of_map, gradient_maps
from mmlearn.models.align.pair_queue import queue_places
from mmlearn.objectives import distilled_targets, hard_negatives, soft_cross_entropy
from mmlearn.objectives.distillation import moving_average, trailing_average

# A teacher that is one's own past.


def _in_place(average, online, momentum):
    average.lerp_(online.detach(), 1 - momentum)
    return average


def _follow(weights, momentum):
    average = weights[0]
    for online in weights[1:]:
        average = momentum * average + (1 - momentum) * online
    return average


def _from_zero(weights, momentum):
    return trailing_average(torch.cat([torch.zeros_like(weights[:1]), weights]), momentum)


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
    """Distilled targets, or what differs in a single place."""
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


def _places(pointer, n, size, *, first=0, around=torch.remainder, move=lambda p, n, size: (p + n) % size):
    places = pointer + first + torch.arange(n)
    return around(places, size), move(pointer, n, size)


def _starts_again(pointer, n, size):
    """Where rows do not fit, they go to the front."""
    return queue_places(pointer if int(pointer) + n <= size else torch.zeros_like(pointer), n, size)


def _pointer_in_place(pointer, n, size):
    places = (pointer + torch.arange(n)) % size
    pointer += n
    pointer %= size
    return places, pointer


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


# Where does it look?


def _maps(maps, score, *, weigh=lambda w, g: w.detach() * g.relu(), total=torch.sum, keep=True):
    gradients = torch.autograd.grad(total(score), list(maps.values()), retain_graph=keep)
    return {name: weigh(w, g) for (name, w), g in zip(maps.items(), gradients)}


def _backward(maps, score):
    for weights in maps.values():
        weights.retain_grad()
    score.sum().backward(retain_graph=True)
    result = {name: weights.detach() * weights.grad.relu() for name, weights in maps.items()}
    for weights in maps.values():
        weights.grad = None
    return result


def _box(maps, grid, threshold=0.5, *, close=1, steps=99, enough=torch.ge, end=1, relative=True, last=False):
    """The box of a map by growing from its highest patch, or one that differs in a single place."""
    boxes = []
    for m in maps.view(-1, *grid):
        high = enough(m, threshold * (m.max() if relative else 1))
        places = (m == m.max()).nonzero().tolist()
        part = {tuple(places[-1 if last else 0])}
        others = {tuple(place) for place in high.nonzero().tolist()}
        for _ in range(steps):
            part |= {
                other
                for other in others
                if any(
                    max(abs(other[0] - row), abs(other[1] - column)) <= 1
                    and abs(other[0] - row) + abs(other[1] - column) <= 1 + close
                    for row, column in part
                )
            }
        top, left = (min(axis) for axis in zip(*part))
        bottom, right = (max(axis) + end for axis in zip(*part))
        boxes.append([left / grid[1], top / grid[0], right / grid[1], bottom / grid[0]])
    return torch.tensor(boxes)


def _all_that_is_high(maps, grid, threshold=0.5):
    high = (maps >= threshold * maps.amax(1, keepdim=True)).view(-1, *grid)
    boxes = [[x.min() for x in h.nonzero().T] + [x.max() + 1 for x in h.nonzero().T] for h in high]
    return torch.tensor(boxes)[:, [1, 0, 3, 2]] / torch.tensor([grid[1], grid[0], grid[1], grid[0]])


MISTAKES = {
    "moving_average": {
        "shares exchanged": (lambda a, x, m: moving_average(a, x, 1 - m), "With momentum 1 the average must stay"),
        "new is added whole": (lambda a, x, m: m * a + x.detach(), "With momentum 1 the average must stay"),
        "the mean": (lambda a, x, m: (a + x.detach()) / 2, "With momentum 1 the average must stay"),
        "what is learned now": (lambda a, x, m: x.detach(), "With momentum 1 the average must stay"),
        "old is kept whole": (
            lambda a, x, m: a + (1 - m) * x.detach(),
            "With momentum 0 the average must become what is learned now",
        ),
        "a step away": (
            lambda a, x, m: a - (1 - m) * (x.detach() - a),
            "With momentum 0 the average must become what is learned now",
        ),
        "squared": (lambda a, x, m: moving_average(a, x, m**2), "m times the average plus 1 - m times the new"),
        "a fixed momentum": (lambda a, x, m: moving_average(a, x, 0.995), "With momentum 1 the average must stay"),
        "in place": (_in_place, "must leave its arguments as they are"),
        "with a gradient": (lambda a, x, m: m * a + (1 - m) * x, "The average must have no gradient"),
        "one number": (lambda a, x, m: moving_average(a, x, m).mean(), "must have shape (3, 4)"),
    },
    "trailing_average": {
        "averages before the step": (
            lambda w, m: trailing_average(w[: max(1, len(w) - 1)], m),
            "With momentum 0 the average must be what the last step has learned",
        ),
        "a step late": (
            lambda w, m: trailing_average(torch.cat([w[:1], w[:-1]]), m) if len(w) > 1 else w[0],
            "With momentum 0 the average must be what the last step has learned",
        ),
        "from zero": (_from_zero, "Before the first step the average must stand where the weights start"),
        "corrected for a start at zero": (
            lambda w, m: _from_zero(w, m) / (1 - m ** len(w)) if m < 1 else w.mean(0),
            "With momentum 1 the average must stay at the start",
        ),
        "the newest first": (
            lambda w, m: trailing_average(w.flip(0), m),
            "With momentum 1 the average must stay at the start",
        ),
        "shares exchanged": (lambda w, m: trailing_average(w, 1 - m), "With momentum 1 the average must stay at the"),
        "the mean of all": (lambda w, m: w.mean(0), "With momentum 1 the average must stay at the start"),
        "the last two": (
            lambda w, m: moving_average(w[-2], w[-1], m) if len(w) > 1 else w[0],
            "With momentum 1 the average must stay at the start",
        ),
        "always from the start": (lambda w, m: moving_average(w[0], w[-1], m), "steps it must hold m^"),
        "skips the first step": (lambda w, m: trailing_average(torch.cat([w[:1], w[2:]]), m), "steps it must hold m^"),
        "the mean of the steps": (
            lambda w, m: m * w[0] + (1 - m) * w[1:].mean(0) if m and len(w) > 1 else w[-1],
            "steps it must hold m^",
        ),
        "with a gradient": (_follow, "The average must have no gradient"),
        "all on the way": (
            lambda w, m: torch.stack([trailing_average(w[: i + 1], m) for i in range(len(w))]),
            "must have shape (4,)",
        ),
    },
    "soft_cross_entropy": {
        "sum over rows": (lambda z, y: len(z) * soft_cross_entropy(z, y), "know nothing must give ln c"),
        "mean over classes": (lambda z, y: -(y * z.log_softmax(-1)).mean(), "know nothing must give ln c"),
        "no minus": (lambda z, y: -soft_cross_entropy(z, y), "know nothing must give ln c"),
        "over rows": (lambda z, y: -(y * z.log_softmax(0)).sum(1).mean(), "know nothing must give ln c"),
        "yes or no for each": (
            lambda z, y: F.binary_cross_entropy_with_logits(z, y),
            "know nothing must give ln c",
        ),
        "exchanged": (lambda z, y: soft_cross_entropy(y, z), "know nothing must give ln c"),
        "the highest class": (
            lambda z, y: F.cross_entropy(z, y.argmax(1)),
            "Logits that agree with the target must cost its entropy",
        ),
        "a softmax of the target": (
            lambda z, y: soft_cross_entropy(z, y.softmax(-1)),
            "on one class it must be the plain cross-entropy",
        ),
        "softmax before": (
            lambda z, y: soft_cross_entropy(z.softmax(-1), y),
            "on one class it must be the plain cross-entropy",
        ),
        "log of a softmax": (
            lambda z, y: -(y * z.softmax(-1).log()).sum(1).mean(),
            "Logits of many hundreds: Its result must be finite",
        ),
        "a small number inside": (
            lambda z, y: -(y * (z.softmax(-1) + 1e-8).log()).sum(1).mean(),
            "What is surely wrong must cost hundreds",
        ),
        "a divergence": (_divergence, "this is a divergence, which is 0 there"),
        "one loss a row": (lambda z, y: F.cross_entropy(z, y, reduction="none"), "must have shape ()"),
        "no gradient": (lambda z, y: soft_cross_entropy(z, y).detach(), "A gradient must flow back to the logits"),
    },
    "distilled_targets": {
        "alpha for the label": (
            lambda z, fits, a: distilled_targets(z, fits, 1 - a),
            "With α = 0 it must be the label",
        ),
        "added": (
            partial(_targets, mix=lambda y, z, alpha: y + alpha * z),
            "With α = 1 it must be the teacher's softmax alone",
        ),
        "logits": (partial(_targets, believe=lambda z: z), "With α = 1 it must be the teacher's softmax alone"),
        "a sigmoid": (partial(_targets, believe=torch.sigmoid), "With α = 1 it must be the teacher's softmax alone"),
        "log softmax": (
            partial(_targets, believe=lambda z: z.log_softmax(-1)),
            "With α = 1 it must be the teacher's softmax alone",
        ),
        "over rows": (partial(_targets, believe=lambda z: z.softmax(0)), "these do over the rows"),
        "the first choice": (
            partial(_targets, believe=lambda z: F.one_hot(z.argmax(1), z.shape[1]).float()),
            "not only its first choice",
        ),
        "label not divided": (
            partial(_targets, label=lambda fits: fits.float()),
            "A row that several candidates fit must still sum to 1",
        ),
        "label divided by columns": (
            partial(_targets, label=lambda fits: fits / fits.sum(0).clamp(min=1)),
            "A row that several candidates fit must still sum to 1",
        ),
        "the diagonal": (
            lambda z, fits, a: distilled_targets(z, torch.eye(*fits.shape, dtype=torch.bool), a),
            "The label must be spread evenly over all that fit",
        ),
        "the label by belief": (_teacher_where_it_fits, "The label must be spread evenly over all that fit"),
        "mixed before the softmax": (_mixed_logits, "With α = 0 it must be the label alone"),
        "with a gradient": (_with_gradient, "A target must have no gradient"),
    },
    "queue_places": {
        "one later": (partial(_places, first=1), "rows must go to"),
        "from the front": (lambda p, n, size: (torch.arange(n), (p + n) % size), "rows must go to"),
        "the pointer stays": (partial(_places, move=lambda p, n, size: p.clone()), "the oldest must be at"),
        "the pointer moves by one": (
            partial(_places, move=lambda p, n, size: (p + 1) % size),
            "the oldest must be at",
        ),
        "the last row written": (
            partial(_places, move=lambda p, n, size: (p + n - 1) % size),
            "the oldest must be at",
        ),
        "beyond the end": (partial(_places, around=lambda x, size: x), "must go round the end of a queue"),
        "all at the end": (partial(_places, around=lambda x, size: x.clamp(max=size - 1)), "must go round the end"),
        "starts again": (_starts_again, "must go round the end of a queue"),
        "one place is never used": (partial(_places, around=lambda x, size: x % (size - 1)), "must go round the end"),
        "the pointer runs away": (partial(_places, move=lambda p, n, size: p + n), "The pointer must go round as well"),
        "the pointer begins again": (
            partial(_places, move=lambda p, n, size: torch.where(p + n >= size, 0, p + n)),
            "The pointer must go round as well",
        ),
        "the pointer one too far": (
            partial(_places, move=lambda p, n, size: torch.where(p + n > size, p + n - size, p + n)),
            "After the last place the pointer must be 0",
        ),
        "in place": (_pointer_in_place, "must leave its arguments as they are"),
        "places alone": (
            lambda p, n, size: queue_places(p, n, size)[0],
            "It must return the places and the new pointer",
        ),
        "floats": (
            lambda p, n, size: tuple(x.float() for x in queue_places(p, n, size)),
            "Places must be whole numbers",
        ),
    },
    "hard_negatives": {
        "its own too": (_logits(lambda s, fits: s), "on the diagonal, must never be drawn"),
        "0 instead of -inf": (_logits(lambda s, fits: s * ~fits), "on the diagonal, must never be drawn"),
        "only what fits": (_logits(lambda s, fits: s.masked_fill(~fits, -torch.inf)), "must never be drawn"),
        "the diagonal only": (_logits(_diagonal_only), "Nothing that fits a row must be drawn, also off the diagonal"),
        "the hardest": (
            lambda s, fits, generator: s.masked_fill(fits, -torch.inf).argmax(1),
            "likely, not certain; here it is always drawn",
        ),
        "temperature again": (
            _logits(lambda s, fits: (s / 0.07).masked_fill(fits, -torch.inf)),
            "similarity is divided by the temperature already",
        ),
        "torch's own generator": (
            lambda s, fits, generator: hard_negatives(s, fits, torch.default_generator),
            "The same seed must draw the same",
        ),
        "a seed of its own": (
            lambda s, fits, generator: hard_negatives(s, fits, torch.Generator().manual_seed(0)),
            "Another seed must draw others",
        ),
        "any": (lambda s, fits, generator: _drawn((~fits).float(), generator), "are equally likely"),
        "over the batch": (_logits(axis=0), "over the candidates of a row: the last axis"),
        "the least similar": (
            _logits(lambda s, fits: (-s).masked_fill(fits, -torch.inf)),
            "here it is the other way",
        ),
        "softmax twice": (
            _logits(lambda s, fits: s.masked_fill(fits, -torch.inf).softmax(-1).masked_fill(fits, -torch.inf)),
            "Odds must be exp(s)",
        ),
        "similarities for odds": (
            lambda s, fits, generator: _drawn(s.masked_fill(fits, 0), generator),
            "It stops in line",
        ),
        "similarities above 0 for odds": (
            lambda s, fits, generator: _drawn((s.clamp(min=0) + 0.01) * ~fits, generator),
            "Odds must be exp(s)",
        ),
        "exp that overflows": (_exp_over_sum, "Similarities of ±200: It stops in line"),
        "its similarity": (_its_similarity, "a whole number for each row"),
        "an axis too many": (
            lambda s, fits, generator: torch.multinomial(s.masked_fill(fits, -torch.inf).softmax(-1), 1),
            "must have shape (8,); this one has (8, 1)",
        ),
    },
    "gradient_maps": {
        "weights alone": (lambda maps, score: {k: w.detach() for k, w in maps.items()}, "speak against the score must"),
        "gradient alone": (partial(_maps, weigh=lambda w, g: g.relu()), "the sum of all weights, each must come back"),
        "no relu": (partial(_maps, weigh=lambda w, g: w.detach() * g), "speak against the score must become 0"),
        "its size": (partial(_maps, weigh=lambda w, g: w.detach() * g.abs()), "speak against the score must become 0"),
        "its sign": (
            partial(_maps, weigh=lambda w, g: w.detach() * (g > 0)),
            "multiplied by its own gradient, where that is positive",
        ),
        "a mean over places": (
            partial(_maps, weigh=lambda w, g: (w.detach() * g.mean((-2, -1), keepdim=True)).relu()),
            "multiplied by its own gradient, where that is positive",
        ),
        "a mean over heads": (
            partial(_maps, weigh=lambda w, g: (w.detach() * g.relu()).mean(1)),
            "must have shape (2, 3, 4, 5); this one has (2, 4, 5)",
        ),
        "mean of the scores": (partial(_maps, total=torch.mean), "the sum of all weights, each must come back"),
        "first row's score": (partial(_maps, total=lambda y: y[0]), "the sum of all weights, each must come back"),
        "a softmax again": (
            partial(_maps, weigh=lambda w, g: (w.detach() * g.relu()).softmax(-1)),
            "the sum of all weights, each must come back",
        ),
        "graph used up": (partial(_maps, keep=False), "It stops in line"),
        "backward": (_backward, "It must leave no gradient on the model's weights"),
        "with a graph": (partial(_maps, weigh=lambda w, g: w * g.relu()), "The maps that come back must have no graph"),
        "a list": (lambda maps, score: list(gradient_maps(maps, score).values()), "It must return a dict, not a list"),
        "one layer": (
            lambda maps, score: {k: w for k, w in gradient_maps(maps, score).items() if k == "layer 1"},
            "one map a layer, under the same names",
        ),
    },
    "box_of_map": {
        "in patches": (
            lambda maps, grid, t=0.5: box_of_map(maps, grid, t) * torch.tensor([grid[1], grid[0], grid[1], grid[0]]),
            "must be shares of the picture",
        ),
        "ends where the last patch begins": (partial(_box, end=0), "one patch wide and high, not a point"),
        "top first": (
            lambda maps, grid, t=0.5: box_of_map(maps, grid, t)[:, [1, 0, 3, 2]],
            "the box of that patch: left, top, right, bottom",
        ),
        "grid turned": (lambda maps, grid, t=0.5: box_of_map(maps, grid[::-1], t), "the box of that patch: left, top"),
        "a corner and a size": (
            lambda maps, grid, t=0.5: (lambda x: torch.cat([x[:, :2], x[:, 2:] - x[:, :2]], 1))(
                box_of_map(maps, grid, t)
            ),
            "A box of one patch must be one patch wide and high",
        ),
        "the highest patch alone": (
            lambda maps, grid, t=0.5: box_of_map(F.one_hot(maps.argmax(1), maps.shape[1]).float(), grid, t),
            "A flat map must give the whole picture",
        ),
        "threshold of 1": (partial(_box, relative=False), "a hundred times less must give the same box"),
        "more than": (partial(_box, enough=torch.gt), "A patch with just half of the highest weight must belong to it"),
        "threshold ignored": (lambda maps, grid, t=0.5: box_of_map(maps, grid), "With threshold 0.8 only patches"),
        "all that is high": (_all_that_is_high, "What is high elsewhere, apart from the highest patch"),
        "neighbours only": (partial(_box, steps=1), "A flat map must give the whole picture"),
        "a few steps": (partial(_box, steps=5), "over several patches must count to its end"),
        "sides only": (partial(_box, close=0), "Patches that touch at a corner must hang together"),
        "the last of several": (partial(_box, last=True), "Of several highest patches that lie apart, the first"),
    },
}
