"""Sets of objects, and queries of tasks: what each function must do, told one property at a time."""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_close,
    expect_not,
    expect_parts,
    expect_sure_and_wrong,
    expect_tensor,
    expect_trains,
    expect_whole,
    over,
    task,
)
from mmlearn.exercises.inputs import between, evenly, numbers, random_boxes, seeded, some_of
from mmlearn.objectives.boxes import centers_to_corners, generalised_iou
from mmlearn.objectives.set_matching import hungarian

# Boxes.


@task(
    generalised_iou,
    difficulty=2,
    minutes=20,
    example=by_hand(
        torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.0, 0.0, 0.2, 0.2]]),
        torch.tensor([[0.2, 0.0, 0.6, 0.4], [0.8, 0.8, 1.0, 1.0]]),
        gives=torch.tensor([0.3333, -0.92]),
    ),
)
def check_generalised_iou(function: Callable) -> None:
    """The overlap's share of the union, less the share of the box around both that neither covers."""
    n = between(30, 36)
    one, other = random_boxes(n), random_boxes(n)
    other[: n // 2] = 0.3 * other[: n // 2] + 0.7 * evenly(n // 2, 1)  # many far away
    got = expect_tensor(function(one, other), (n,))

    def parts(one: Tensor, other: Tensor, least: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        shared = (torch.min(one[:, 2:], other[:, 2:]) - torch.max(one[:, :2], other[:, :2])).clamp(min=least)
        around = torch.max(one[:, 2:], other[:, 2:]) - torch.min(one[:, :2], other[:, :2])
        areas = [(box[:, 2:] - box[:, :2]).prod(1) for box in (one, other)]
        return shared.prod(1), sum(areas), around.prod(1)

    shared, areas, around = parts(one, other)
    union = areas - shared
    less = "I / U - (C - U) / C."
    expect_not(
        got, shared / union, "Boxes that do not touch must give less the farther they are; here all give 0.", less
    )
    expect_not(got, 1 - generalised_iou(one, other), "It must be 1 for equal boxes; this is the loss, 1 - GIoU.", less)
    raw, *_ = parts(one, other, -math.inf)
    apart = raw / (areas - raw) - (around - areas + raw) / around
    expect_not(
        got,
        apart,
        "The overlap of boxes that do not touch is 0; here two negative sides make an area.",
        "clamp(min=0).",
    )
    expect_not(got, shared / union - (around - union), "What neither covers must be a share of C.", less)
    expect_not(got, shared / union - (around - union) / union, "What neither covers is divided by C, not by U.", less)
    twice = shared / areas - (around - areas) / around
    expect_not(got, twice, "The overlap must count once in the union; here it counts twice.", "A + B - I.")
    expect_not(got, shared / around, "It must be I / U less a share; here it is I / C.", less)
    sized = generalised_iou(centers_to_corners(one), centers_to_corners(other))
    expect_not(
        got, sized, "A box is left, top, right, bottom; here it is read as middle and size.", "x[..., 2] is right."
    )
    agreement(function, generalised_iou)((one, other), "It must be I / U - (C - U) / C.", less)
    expect_close(function(one, one), torch.ones(n), "Equal boxes must give 1.", less)
    with case("With boxes of several pictures"):
        images = random_boxes(2, 3), random_boxes(2, 3)
        agreement(function, generalised_iou)(images, "Each pair must give a number.", "x[..., 0], for any axes.")
    expect_trains(function, one, other, like=generalised_iou)


# A set of guesses.


def hard_costs(guesses: int, objects: int) -> Tensor:
    """Costs (q, p), of which objects 0 and 1 want the same guess, and 0 wants it more but needs it less."""
    cost = 0.1 * evenly(guesses, objects)
    first, second, *others = torch.randperm(guesses, generator=seeded()).tolist()
    far = torch.full_like(cost, 2.0)
    far[first, :2], far[second, 0] = torch.tensor([0.0, 0.3]), 0.6
    for j, guess in zip(range(2, objects), others):
        far[guess, j] = 0.15
    return cost + far - 1.5


def in_turn(cost: Tensor) -> list[int]:
    """Greedily: each object takes the best guess that is left."""
    rest, found = cost.clone(), []
    for column in range(cost.shape[1]):
        found.append(int(rest[:, column].argmin()))
        rest[found[-1]] = math.inf
    return found


def by_smallest(cost: Tensor) -> list[int]:
    """Greedily: the smallest cost of all first."""
    rest, found = cost.clone(), [0] * cost.shape[1]
    for _ in found:
        i, j = divmod(int(rest.argmin()), cost.shape[1])
        found[j] = i
        rest[i], rest[:, j] = math.inf, math.inf
    return found


@task(
    hungarian,
    difficulty=3,
    minutes=30,
    example=by_hand(torch.tensor([[[1.0, 2.0], [2.0, 9.0]]]), torch.ones(1, 2).bool(), gives=torch.tensor([[1, 0]])),
)
def check_hungarian(function: Callable) -> None:
    """Of all ways to give each object a guess of its own the cheapest, without padding."""
    p, b = between(3, 4), 3
    q = p + 1
    real = torch.stack([torch.arange(p) >= 0, torch.arange(p) > 0, some_of(p, real=p - 1)])
    cost = torch.zeros(b, q, p)
    for row, there in enumerate(real):
        cost[row][:, there] = hard_costs(q, int(there.sum()))
    wanted = hungarian(cost, real)
    for row in range(1, b):
        cost[row, wanted[row].max(), ~real[row]] = -9  # padding would take the guess of an object
    got = expect_whole(function(cost, real), (b, p), "linear_sum_assignment gives arrays: torch.from_numpy.")
    rows = range(b)
    expect((got[~real] == -1).all(), "Padding has no guess: it must be -1.", "only columns where real is True.")
    expect((got[real] >= 0).all() and (got < q).all(), "Each object must have one of the guesses.", "0 to q - 1.")
    double = any(len(set(got[row][real[row]].tolist())) < int(real[row].sum()) for row in rows)
    expect(not double, "No two objects may have the same guess.", "the cheapest way on the whole, not argmin.")

    def total(match: Tensor) -> Tensor:
        return (cost.gather(1, match.clamp(min=0)[:, None])[:, 0] * real).sum(1)

    expect_not(
        total(got), total(hungarian(-cost, real)), "The sum must be the smallest; here it is the largest.", "cost."
    )
    all_columns = hungarian(cost, torch.ones_like(real))
    taken = "Padding must take no guess from an object."
    expect(not torch.equal(got, all_columns.masked_fill(~real, -1)), taken, "leave its columns out before you match.")
    way = "scipy.optimize.linear_sum_assignment, or itertools.permutations."
    for row in rows:
        own, there = got[row][real[row]].tolist(), cost[row][:, real[row]]
        greedy = "The sum must be the smallest; here the best that is left is taken, one after another."
        expect(own not in (in_turn(there), by_smallest(there)), greedy, way)
    expect(
        torch.equal(got, wanted),
        f"The sum of costs must be the smallest that there is: expected {float(total(wanted).sum()):.3f}, got "
        f"{float(total(got).sum()):.3f}.",
        way,
    )
    with case("With guesses in another order"):
        order = torch.randperm(q, generator=seeded())
        again = expect_whole(function(cost[:, order], real), (b, p))
        same = torch.equal(order[again[real]], got[real])
        expect(same, "Each object must get the guess that it had.", way)


def set_cross_entropy(
    logits: Float[Tensor, "b q c"],
    match: Int[Tensor, "b p"],
    classes: Int[Tensor, "b p"],
    no_object_weight: float = 0.1,
) -> Float[Tensor, ""]:
    """The cross-entropy of all guesses, of which those without an object should say *nothing*, the last class."""
    nothing = logits.shape[-1] - 1
    asked = torch.full(logits.shape[:2], nothing)
    row, column = torch.where(match >= 0)
    asked[row, match[row, column]] = classes[row, column]
    weight = torch.ones(nothing + 1)
    weight[nothing] = no_object_weight
    return F.cross_entropy(logits.transpose(1, 2), asked, weight)


@task(
    set_cross_entropy,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([[[0.0, 0.0], [0.0, 1.0986]]]), torch.tensor([[0]]), torch.tensor([[0]]), gives=0.6563
    ),
)
def check_set_cross_entropy(function: Callable) -> None:
    """A class for each guess that has an object, nothing for all others, and nothing counts little."""
    b, q, p, c = 3, between(6, 7), 3, between(5, 6)
    match = evenly(b, q - 1).argsort(1)[:, :p]  # never the last guess
    match[1, 2] = match[2, 1] = -1
    classes = torch.randint(1, c - 1, (b, p), generator=seeded())
    draws = [(numbers(b, q, c), match, classes) for _ in range(3)]
    got = over(draws, function)

    def asked(guess: Tensor, padding: bool = False, empty: int = c - 1) -> Tensor:
        found = torch.full((b, q), empty)
        for row, column in itertools.product(range(b), range(p)):
            if padding or match[row, column] >= 0:
                found[row, guess[row, column]] = classes[row, column]
        return found

    def cost(
        target: Tensor, nothing: float = 0.1, one: float = 1.0, by: Callable = torch.sum, empty: int = c - 1
    ) -> Tensor:
        weight = torch.where(target == empty, nothing, one)
        each = [-logits.log_softmax(-1).gather(2, target[..., None])[..., 0] for logits, *_ in draws]
        return torch.stack([(weight * loss).sum() / by(weight) for loss in each])

    right = asked(match)
    rare = "weight has one number a class, and that of the last class is no_object_weight."
    expect_not(got, cost(right, 1.0), "Nothing must count with its weight; here it counts as all others do.", rare)
    expect_not(
        got, cost(right, 0.0), "Guesses without an object must learn to say nothing; here they are left out.", rare
    )
    expect_not(got, cost(right, 1.0, 0.1), "The weight is that of nothing; here it is that of objects.", rare)
    mean = "divide by the sum of the weights of all guesses, as F.cross_entropy(…, weight) does."
    expect_not(
        got, cost(right, by=torch.numel), "Divide by the sum of weights; here it is by the number of guesses.", mean
    )
    objects = int((match >= 0).sum())
    by_objects = cost(right, by=lambda w: objects)
    expect_not(got, by_objects, "Divide by the sum of weights; here it is by the number of objects.", mean)
    expect_not(got, cost(right, by=lambda w: 1), "It must be a mean; here it is a sum.", mean)
    zero = cost(asked(match, empty=0), empty=0)
    expect_not(got, zero, "Nothing is the last class; here it is class 0.", "logits.shape[-1] - 1.")
    last = cost(asked(match, True))
    expect_not(got, last, "Padding must ask nothing; here match -1 means the last guess.", "match >= 0 first.")
    order = cost(asked(torch.arange(p).expand(b, p)))
    chosen = "asked[row, match[row, column]] = classes[row, column]."
    expect_not(got, order, "Guess match[j] must say object j's class; here guess j does.", chosen)
    agreement(function, set_cross_entropy)(draws, "It must be the weighed cross-entropy of all guesses.", mean)
    with case("With another weight"):
        agreement(function, set_cross_entropy)(
            [(*draw, 0.5) for draw in draws], "no_object_weight must be that of nothing.", rare
        )
    turned = torch.randperm(p, generator=seeded())
    moved = [(logits, match[:, turned], classes[:, turned]) for logits, *_ in draws]
    expect_close(over(moved, function), got, "The order of objects must not count.", chosen)
    expect_trains(function, draws[0][0], like=set_cross_entropy, fixed=(match, classes))
    sure = 400 * F.one_hot((right + 1) % c, c).float()
    expect_sure_and_wrong(function, sure, like=set_cross_entropy, fixed=(match, classes))


# Queries of a task.


def solve_by_task(
    context: Float[Tensor, "b n d"],
    queries: Sequence[Float[Tensor, "_ d"]],
    task: Int[Tensor, "b"],
    decoder: Callable,
    heads: Sequence[Callable],
) -> tuple[Float[Tensor, "_ _"], ...]:
    """For each task what its head says of its rows, from the first of its own queries."""
    found = []
    for number, (own, head) in enumerate(zip(queries, heads)):
        rows = context[task == number]
        looked = decoder(own.expand(len(rows), -1, -1), rows)
        found.append(head(looked[:, 0]))
    return tuple(found)


@task(
    solve_by_task,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([[[10.0]], [[20.0]]]), [torch.tensor([[1.0], [5.0]]), torch.tensor([[2.0]])],
        torch.tensor([1, 0]), lambda query, context: query + context, [lambda x: x, lambda x: -x],
        gives=(torch.tensor([[21.0]]), torch.tensor([[-12.0]])),
    ),
)  # fmt: skip
def check_solve_by_task(function: Callable) -> None:
    """Each row is asked by the queries of its task, and answered by the head of its task."""
    b, n, d, answers = 9, between(3, 4), between(5, 6), (2, 5, 3)
    context = numbers(b, n, d)
    queries = [numbers(count, d) for count in (2, 4, 3)]
    weights = [numbers(d, count) for count in answers]
    heads = [lambda x, weight=weight: (x @ weight).tanh() for weight in weights]
    kinds = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 1])[torch.randperm(b, generator=seeded())]

    def decoder(query: Tensor, context: Tensor) -> Tensor:
        seen = (2 * query @ context.transpose(1, 2)).softmax(-1) @ context
        return query + seen + query.mean(1, keepdim=True)

    def answered(function: Callable, kinds: Tensor) -> list[Tensor]:
        names = [f"the answers of task {number}" for number in range(3)]
        parts = expect_parts(function(context, list(queries), kinds, decoder, list(heads)), *names)
        return [
            expect_tensor(part, (int((kinds == number).sum()), count))
            for number, (part, count) in enumerate(zip(parts, answers))
        ]

    def mistaken(own: Callable, which: Callable = lambda x: x[:, 0]) -> list[Tensor]:
        rows = [context[kinds == k] for k in range(3)]
        return [heads[k](which(decoder(own(k).expand(len(rows[k]), -1, -1), rows[k]))) for k in range(3)]

    def is_like(other: list[Tensor]) -> bool:
        return all(torch.allclose(one, two, atol=1e-5) for one, two in zip(got, other))

    got = answered(function, kinds)
    own = "queries[k] for the rows where task is k."
    expect(not is_like(mistaken(lambda k: queries[0])), "Each task must ask its own queries; here all ask one's.", own)
    first = "the first query is read: looked[:, 0]."
    for name, which in (("mean", lambda x: x.mean(1)), ("last", lambda x: x[:, -1])):
        other = mistaken(queries.__getitem__, which)
        expect(not is_like(other), f"The first query must be read; here it is the {name}.", first)
    alone = "The decoder must get all queries of a task, because they see each other; here it gets the first alone."
    expect(not is_like(mistaken(lambda k: queries[k][:1])), alone, "queries[k].expand(rows, -1, -1).")
    wanted = solve_by_task(context, queries, kinds, decoder, heads)
    expect(is_like(list(wanted)), "Rows of a task must be answered in their order, from their own context.", own)
    with case("Where no row asks task 1"):
        kinds = torch.where(kinds == 1, 2, kinds)
        got = answered(function, kinds)
        wanted = solve_by_task(context, queries, kinds, decoder, heads)
        expect(is_like(list(wanted)), "Rows of other tasks must be answered as ever.", own)
    kinds = torch.arange(b) % 3
    expect_trains(function, context, queries, like=solve_by_task, fixed=(kinds, decoder, heads))
