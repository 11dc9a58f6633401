"""Slow averages, queues and hard negatives: what each must do, told one property at a time."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_close,
    expect_constant,
    expect_log,
    expect_not,
    expect_parts,
    expect_rows_differ,
    expect_seeded,
    expect_share,
    expect_tensor,
    expect_trains,
    expect_whole,
    near,
    task,
)
from mmlearn.exercises.inputs import between, seeded, uniform
from mmlearn.models.align.pair_queue import queue_positions
from mmlearn.objectives import distilled_targets, hard_negatives, soft_cross_entropy
from mmlearn.objectives.distillation import momentum_update, momentum_weights

# A teacher that is one's own past.


@task(
    momentum_update,
    difficulty=1,
    minutes=5,
    example=by_hand(torch.tensor([0.0, 4.0]), torch.tensor([8.0, 4.0]), 0.75, gives=torch.tensor([2.0, 4.0])),
)
def check_momentum_update(function: Callable) -> None:
    """It stays at momentum 1, jumps at 0, and has no gradient."""
    slow, online, momentum = torch.randn(3, 4), torch.randn(3, 4), uniform(0.6, 0.9)
    same = agreement(function, momentum_update)
    expect_tensor(function(slow, online, 0.9), (3, 4))
    same(
        (slow, online, 1.0),
        "With momentum 1 the momentum encoder must stay where it is.",
        "momentum is the share of the old weight that is kept, and 1 - momentum that of the new.",
    )
    same(
        (slow, online, 0.0),
        "With momentum 0 the momentum encoder must become what is learned now.",
        "the old weight is multiplied by momentum, so nothing of it is left.",
    )
    same(
        (slow, online, momentum),
        f"With momentum {momentum:.2f} it must be m times the old weight plus 1 - m times the new.",
        "both shares are of the first power and sum to 1.",
    )
    for shape in ((), (2, 3, 4)):
        with case(f"Weights of shape {shape}"):
            given = torch.randn(shape), torch.randn(shape), momentum
            same(given, "It must work too.", "one operation on the whole tensor.")
    expect_constant(function(slow, online.clone().requires_grad_(), momentum))


@task(
    momentum_weights,
    difficulty=2,
    minutes=10,
    example=by_hand(torch.tensor([0.0, 8.0, 4.0]), 0.5, gives=torch.tensor(4.0)),
)
def check_momentum_weights(function: Callable) -> None:
    """What stood after every step counts, the newest most, and of the start m to the power s is left."""
    steps, momentum = between(3, 6), uniform(0.6, 0.9)
    weights = torch.randn(steps + 1, 4)
    same = agreement(function, momentum_weights)
    expect_tensor(function(weights, momentum), (4,))
    same(
        (weights[:1], momentum),
        "Before the first step the momentum encoder must stand where the weights start.",
        "weights[0] is the start; nothing has followed yet.",
    )
    same(
        (weights, 1.0),
        "With momentum 1 the momentum encoder must stay at the start.",
        "it begins at weights[0], and m is what it keeps of itself.",
    )
    same(
        (weights, 0.0),
        "With momentum 0 the momentum encoder must be what the last step has learned.",
        "first the optimiser's step, then the momentum encoder: it follows the weights after the step, not before it.",
    )
    same(
        (weights, momentum),
        f"After {steps} steps it must hold m^{steps} of the start, and (1 - m) m^({steps} - i) of weights[i].",
        "go through the steps in their order; each moves the weights that the one before has left.",
    )
    for shape in ((), (2, 3)):
        with case(f"Weights of shape {(steps + 1, *shape)}"):
            same((torch.randn(steps + 1, *shape), momentum), "It must work too.", "the first axis is the steps.")
    expect_constant(function(weights.clone().requires_grad_(), momentum))


@task(
    soft_cross_entropy,
    difficulty=2,
    minutes=10,
    example=by_hand(torch.tensor([[3.0, 1.0]]).log(), torch.tensor([[0.5, 0.5]]), gives=0.837),
)
def check_soft_cross_entropy(function: Callable) -> None:
    """ln c of nothing, plain cross-entropy of a certain target, the entropy at best."""
    n, c = between(4, 6), 8
    logits, target = torch.randn(n, c), (2 * torch.randn(n, c)).softmax(-1)
    same = agreement(function, soft_cross_entropy)
    best = expect_tensor(function(target.log(), target), ())
    expect_not(
        best,
        0.0,
        "Logits that agree with the target must still cost its entropy; this is a divergence, which is 0 there.",
        "a cross-entropy does not subtract the entropy of the target.",
    )
    mean = "minus the sum over the c classes, and the mean over the n rows only."
    expect_log(function(torch.zeros(n, c), target), c, "c", mean)
    label = logits.argmin(1)  # where they are surely wrong
    certain = F.one_hot(label, c).float()
    expect_close(
        function(logits, certain),
        F.cross_entropy(logits, label),
        "With all of the target on one class it must be the plain cross-entropy.",
        "-log softmax of the logits at that class; the target is a distribution already.",
        tolerance=1e-3,
    )
    with case("Logits of many hundreds"):
        same(
            (500 * logits, certain),
            "What is surely wrong must cost hundreds.",
            "log_softmax, or cross_entropy; a small number inside the logarithm is a limit to the cost.",
        )
        expect_trains(function, 500 * logits, fixed=(certain,), like=soft_cross_entropy)
    same((target.log(), target), "Logits that agree with the target must cost its entropy.", "all classes count.")
    same(
        (logits, target),
        "It must be the mean over rows of -Σ y log softmax(z).",
        "every class counts with its share of the target.",
    )
    expect_trains(function, logits, fixed=(target,), like=soft_cross_entropy)


@task(
    distilled_targets,
    difficulty=3,
    minutes=15,
    example=by_hand(
        torch.zeros(1, 4), torch.tensor([[True, False, True, False]]), 0.4, gives=torch.tensor([[0.4, 0.1, 0.4, 0.1]])
    ),
)
def check_distilled_targets(function: Callable) -> None:
    """The label alone at α = 0, the teacher alone at 1, always a distribution, never a gradient."""
    n, c, alpha = 4, 7, uniform(0.2, 0.4)
    teacher, own = 2 * torch.randn(n, c), torch.eye(n, c, dtype=torch.bool)
    positives = own.clone()
    positives[0, 2] = positives[0, 5] = positives[3, 4] = True
    same = agreement(function, distilled_targets)
    expect_tensor(function(teacher, own, alpha), (n, c))
    label = "With α = 0 it must be the label alone."
    same((teacher, own, 0.0), label, "alpha is the share of the teacher, 1 - alpha that of the label.")
    got = expect_tensor(function(teacher, own, 1.0), (n, c))
    expect_not(
        got,
        teacher.softmax(0),
        "The teacher's shares must sum to 1 over the candidates of a row; these do over the rows.",
        "softmax(-1).",
    )
    expect_not(
        got,
        F.one_hot(teacher.argmax(1), c).float(),
        "With α = 1 it must hold all that the teacher believes, not only its first choice.",
        "no argmax: its doubts are what is learned from.",
    )
    same(
        (teacher, own, 1.0),
        "With α = 1 it must be the teacher's softmax alone.",
        "what comes in are logits; turn them into shares before you mix.",
    )
    expect(
        near(expect_tensor(function(teacher, positives, 0.0), (n, c)).sum(1), 1.0),
        "A row that several candidates fit must still sum to 1.",
        "divide positives by how many there are in the row.",
    )
    even = "The label must be spread evenly over all that fit."
    same((teacher, positives, 0.0), even, "each of |P_i| candidates gets 1 / |P_i|.")
    same(
        (teacher, positives, alpha),
        f"With α = {alpha:.2f} it must be α times the teacher plus 1 - α times the label.",
        "mix the two distributions, not the logits; rows with more than one that fits too.",
    )
    with case("A teacher with logits of hundreds"):
        sure = 300 * teacher.argsort(1).argsort(1).float()
        same((sure, positives, alpha), "It must be the same mixture.", "softmax subtracts the maximum; exp does not.")
    expect_constant(function(teacher.clone().requires_grad_(), positives, alpha))


@task(
    queue_positions,
    difficulty=2,
    minutes=10,
    example=by_hand(torch.tensor([3]), 4, 5, gives=(torch.tensor([3, 4, 0, 1]), torch.tensor([2]))),
)
def check_queue_positions(function: Callable) -> None:
    """Rows go over the oldest ones, and round and round."""

    def both(pointer: int, n: int, size: int) -> tuple[list[int], int]:
        positions, moved = expect_parts(function(torch.tensor([pointer]), n, size), "positions", "pointer")
        return expect_whole(positions, (n,)).tolist(), int(expect_whole(moved, (1,)))

    size, n, start = between(12, 19), between(3, 5), between(2, 5)
    positions, pointer = both(start, n, size)
    expect(
        positions == list(range(start, start + n)),
        f"With the oldest row at {start}, {n} rows must go to {start} … {start + n - 1}; these go to {positions}.",
        "from the pointer on, one after another.",
    )
    expect(
        pointer == start + n,
        f"After {n} rows from {start} on, the oldest must be at {start + n}; this says {pointer}.",
        "the pointer moves by as many rows as were written.",
    )
    start = size - 2
    positions, pointer = both(start, n, size)
    expect(
        positions == [(start + i) % size for i in range(n)],
        f"{n} rows from {start} on must go round the end of a queue of {size}; these go to {positions}.",
        f"after position {size - 1} comes position 0: % size.",
    )
    expect(
        pointer == (start + n) % size,
        f"The pointer must go round as well, to {(start + n) % size}; this says {pointer}.",
        "% size; to begin again at 0 would lose count of what was written after the end.",
    )
    positions, pointer = both(size - n, n, size)
    expect(
        pointer == 0, f"After the last place the pointer must be 0; this says {pointer}.", "there is no position size."
    )
    with case("As many rows as the queue holds"):
        positions, pointer = both(start, size, size)
        expect(
            sorted(positions) == list(range(size)),
            "Each position must be written once.",
            "the whole circle, from there.",
        )
        expect(pointer == start, "The pointer must come back to where it was.", "once round.")
    with case("A queue of more than 2²⁴ rows"):
        got = both(2**24 + 1, 2, 2**25)
        whole = "stay with whole numbers: float32 leaves out every second one there."
        expect(got == ([2**24 + 1, 2**24 + 2], 2**24 + 3), f"Places must be exact; this says {got}.", whole)


# Pairs that look right.


@task(
    hard_negatives,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([[5.0, 2.0, 1.0]]).log(),
        torch.tensor([[True, False, False]]),
        seeded,
        gives=lambda got: got.tolist() in ([1], [2]),
        says="the second or the third, [1] or [2]",
    ),
)
def check_hard_negatives(function: Callable) -> None:
    """Never one that fits; by chance, with odds exp s; from the generator."""
    b, rounds = 8, 40

    def draw(similarity: Tensor, positives: Tensor, seed: Generator | None = None) -> Tensor:
        n, m = similarity.shape
        which = "which candidate was drawn: the number of its column, not its similarity."
        drawn = expect_whole(function(similarity, positives, seeded(seed)), (n,), which)
        expect(((drawn >= 0) & (drawn < m)).all(), f"Of {m} candidates the numbers are 0 to {m - 1}.", "no offset.")
        return drawn

    similarity = torch.randn(b, b) + 2 * torch.eye(b) - 3  # all below 0, or nearly; a row's own is the most similar
    own = torch.eye(b, dtype=torch.bool)
    drawn = torch.stack([draw(similarity, own) for _ in range(rounds)])
    expect(
        (drawn != torch.arange(b)).all(),
        "A row's own candidate, on the diagonal, must never be drawn.",
        "its probability must be 0, so its logit -inf: masked_fill(positives, -inf); a logit of 0 still has odds e⁰.",
    )
    wide = torch.cat([similarity, similarity[:, :3]], dim=1)
    positives = torch.cat([own, own[:, :3]], dim=1)
    positives[::2, 5] = True
    wide[:, 5] += 4
    drawn = torch.stack([draw(wide, positives) for _ in range(rounds)])
    expect(
        not positives[torch.arange(b), drawn].any(),
        "Nothing that fits a row must be drawn, also off the diagonal.",
        "positives says it all; a caption may occur twice.",
    )
    _check_odds(draw)
    with case("Similarities of ±200"):
        drawn = draw(200 * similarity.sign(), own)
        expect((drawn != torch.arange(b)).all(), "It must work too.", "softmax subtracts the maximum; exp does not.")
    with case("Candidates that fit, and are hundreds more similar than others"):
        far = torch.tensor([300.0, 1.5, 0.0]).expand(3000, 3), torch.tensor([True, False, False]).expand(3000, 3)
        share = torch.tensor([1.5, 0.0]).softmax(0)[0].item()
        hint = "mask the logits before the softmax; after it the shares of all others are 0 already."
        expect_share(draw(*far) == 1, share, "The others must keep their odds.", hint)
        hint = "the softmax subtracts the maximum; a clamp makes all large similarities alike."
        expect_share(draw(far[0] + 500, far[1]) == 1, share, "500 more for all must not change the odds.", hint)


def _check_odds(draw: Callable) -> None:
    n, order = 4000, torch.randperm(6)
    few = torch.zeros(21, 6), F.one_hot(torch.tensor([0] * 20 + [1]), 6).bool()
    expect_rows_differ(lambda seed: draw(*few, seed)[:20])
    row = torch.tensor([2.0, 1.5, 0.7, 0.0, -0.7, -1.5])[order]  # the first one fits
    similarity = torch.cat([row.expand(n, 6), torch.zeros(n, 6)])  # half of the rows know nothing
    positives = torch.cat([(order == 0).expand(n, 6), (order == 1).expand(n, 6)])
    share = F.one_hot(draw(similarity, positives)[:n], 6).float().mean(0)[order.argsort()]  # the most similar first
    expect(
        share[1] < 0.95,
        "The most similar must be likely, not certain; here it is always drawn.",
        "draw from the softmax; no argmax, and similarity is divided by the temperature already.",
    )
    expect_seeded(lambda seed: draw(similarity, positives, seed))
    expect(
        (share[1:] - 0.2).abs().max() > 0.04,
        "The more similar must be the likelier; here all that do not fit are equally likely.",
        "the odds are exp(s), from a softmax.",
    )
    expect(share[1] > share[5], "The more similar must be the likelier; here it is the other way.", "exp(s).")
    wanted = row.masked_fill(positives[0], -torch.inf).softmax(-1)[order.argsort()]
    said = ", ".join(f"{x:.2f}" for x in share[1:])
    expect(
        (share - wanted).abs().max() < 0.05,
        f"Odds must be exp(s): {', '.join(f'{x:.2f}' for x in wanted[1:])} here; these are {said}.",
        "softmax once, over the candidates of a row: the last axis.",
    )
