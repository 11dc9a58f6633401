"""One stack of blocks and its experts: what each function must do, told one property at a time."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_boolean,
    expect_close,
    expect_not,
    expect_parts,
    expect_tensor,
    expect_trains,
    expect_whole,
    expect_zero,
    over,
    task,
)
from mmlearn.exercises.inputs import between, evenly, first_of, numbers, some_of

# Three ways to encode.


def three_encodings(
    seen: Bool[Tensor, "b 2"], patches: int, mask: Bool[Tensor, "b t"], target_mask: Bool[Tensor, "b o"]
) -> Bool[Tensor, "b n n"]:
    """Who sees whom where n tokens share one stack: patches, words, and a target."""
    image = seen[:, :1].expand(len(mask), patches)
    there = torch.cat([image, seen[:, 1:] & mask, target_mask], 1)
    n, read = there.shape[1], patches + mask.shape[1]
    is_read = torch.arange(n) < read
    past = ~is_read[:, None] & torch.ones(n, n, dtype=torch.bool).tril()
    return (is_read | past) & there[:, None]


@task(
    three_encodings,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([[True, True]]), 1, torch.tensor([[True]]), torch.tensor([[True, True]]),
        gives=torch.tensor(
            [[[True, True, False, False], [True, True, False, False], [True, True, True, False], [True] * 4]]
        ),
    ),
)  # fmt: skip
def check_three_encodings(function: Callable) -> None:
    """What is read is seen both ways, a target from left to right, and what a way hides by nobody."""
    p, t, o = between(3, 4), between(5, 6), between(4, 5)
    mask, target_mask = first_of(t, [t, t - 2]), first_of(o, [o, o - 1])
    ways = {"Picture to text": (True, False), "Text to text": (False, True), "Picture and text to text": (True, True)}
    for name, way in ways.items():
        with case(name):
            seen = torch.tensor([way, way])
            got = expect_boolean(function(seen, p, mask, target_mask), (2, p + t + o, p + t + o))
            image = torch.full((2, p), way[0])
            there = torch.cat([image, mask & way[1], target_mask], 1)
            rows = got & there[:, :, None]
            blocks = (slice(0, p), "The picture"), (slice(p, p + t), "The text")
            for (columns, what), shown in zip(blocks, way):
                hidden = f"{what} must be seen by nobody: seen is False."
                expect(shown or not rows[:, :, columns].any(), hidden, "columns, not rows, say what is seen.")
            expect(
                not rows[1, :, p + t - 2 : p + t].any(), "Padding of a text must never be seen.", "mask, by columns."
            )
            expect(
                not rows[:, : p + t, p + t :].any(),
                "What is read must not see the target, which is to be written.",
                "its rows, the last columns: False.",
            )
            future = torch.ones(o, o, dtype=torch.bool).triu(1)
            written = rows[:, p + t :, p + t :]
            expect(not (written & future).any(), "A token of the target must not see later ones.", "tril.")
            expect(written[0].diagonal().all(), "A token of the target must see itself.", "tril() with the diagonal.")
            read = rows[0, : p + t, : p + t][there[0, : p + t]][:, there[0, : p + t]]
            both = "What is read must be seen both ways, later tokens as well."
            expect(read.all(), both, "tril is for the target alone.")
            looks = rows[:, p + t :, : p + t][target_mask]
            wanted = three_encodings(seen, p, mask, target_mask) & there[:, :, None]
            context = "The target must see all that is read and may be seen."
            expect(
                torch.equal(looks, wanted[:, p + t :, : p + t][target_mask]), context, "its rows, all columns there."
            )
            expect(torch.equal(rows, wanted), "Each must see what is read, and a target its past too.", both)
    with case("Where each row of a batch goes its own way"):
        seen = torch.tensor([[True, False], [False, True]])
        there = torch.cat([seen[:, :1].expand(2, p), mask & seen[:, 1:], target_mask], 1)[:, :, None]
        got = expect_boolean(function(seen, p, mask, target_mask), (2, p + t + o, p + t + o))
        wanted = three_encodings(seen, p, mask, target_mask)
        expect(torch.equal(got & there, wanted & there), "Each row must go its own.", "seen[:, :1] is (b, 1).")


# Experts.


def route_to_one(
    probability: Float[Tensor, "n e"], real: Bool[Tensor, "n"], capacity: int
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n"]]:
    """Each token's expert, -1 where that is full, and how much its answer counts."""
    weight, expert = probability.max(1)
    asks = F.one_hot(expert, probability.shape[1]) * real[:, None]
    turn = (asks.cumsum(0) * asks).sum(1)  # which position a token has at its expert; 0 for padding
    kept = (turn >= 1) & (turn <= capacity)
    return torch.where(kept, expert, -1), weight * kept


@task(
    route_to_one,
    difficulty=3,
    minutes=25,
    example=by_hand(
        torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.2, 0.8], [0.9, 0.1]]), torch.ones(4).bool(), 2,
        gives=(torch.tensor([0, 0, 1, -1]), torch.tensor([0.6, 0.7, 0.8, 0.0])),
    ),
)  # fmt: skip
def check_route_to_one(function: Callable) -> None:
    """The likeliest expert takes the first tokens that want it; those that come later go to none."""
    e, capacity = 4, between(2, 3)
    n = 4 * capacity + 8
    wants = torch.arange(n) % e
    wants[:4], wants[-2 * capacity - 2 :] = 2, 2  # expert 2 is wanted by more than it can take
    sure = 0.8 - 0.4 * torch.linspace(-1, 1, n).abs()[:, None]  # those in the middle are the surest
    probability = sure * F.one_hot(wants, e) + (1 - sure) * (0.2 * evenly(n, e)).softmax(1)
    real = torch.arange(n) != 0
    real[[2, n - 1]] = False  # two of them want expert 2 before its turn is over
    likely = probability.max(1).values

    def parts(function: Callable, *given: object) -> tuple[Tensor, Tensor]:
        expert, weight = expect_parts(function(*given), "expert", "weight")
        return expect_whole(expert, (n,)), expect_tensor(weight, (n,))

    expert, weight = parts(function, probability, real, capacity)
    right, wanted = parts(route_to_one, probability, real, capacity)
    expect((expert[~real] == -1).all(), "Padding must go to no expert, which is -1.", "torch.where(real, expert, -1).")
    elsewhere = (expert >= 0) & (expert != wants)
    second = "A token whose expert is full goes to none; here it goes to another."
    expect(not elsewhere.any(), second, "-1: the residual path carries it past the block.")
    expect(bool((expert == -1)[real].any()), "A full expert must take no more; here none is ever full.", "capacity.")
    padded, _ = route_to_one(probability, real | True, capacity)
    took = "Padding must take no position in an expert's queue; here it does."
    expect(not torch.equal(expert, torch.where(real, padded, -1)), took, "count only tokens that are real.")
    counts = torch.bincount(expert[expert >= 0], minlength=e)
    taken = f"An expert must take {capacity} tokens where so many want it; here one takes {int(counts.max())}."
    expect(counts.max() == capacity, taken, "count from 1, and keep those up to the capacity.")
    ranks = [(i, likely[i]) for i in range(n) if real[i]]
    surest = torch.full((n,), -1)
    for i, _ in sorted(ranks, key=lambda pair: -pair[1]):
        surest[i] = wants[i] if int((surest == wants[i]).sum()) < capacity else -1
    expect(not torch.equal(expert, surest), "The first tokens must be taken; here the surest are.", "cumsum, not sort.")
    expect(torch.equal(expert, right), "Of those that want an expert it must take the first.", "cumsum over tokens.")
    scaled = "The weight must be how likely the expert is; here it is 1, from which a router learns nothing."
    expect_not(weight, wanted.sign(), scaled, "probability.max(1).values: a share of one expert alone would be 1.")
    kept = "The weight of a token that goes to no expert must be 0."
    expect_not(weight, likely, kept, "weight * kept.")
    expect_not(weight, likely * real, kept, "weight * kept.")
    expect_close(weight, wanted, "The weight must be the probability of the expert.", "0 where there is none.")
    with case("With room for all"):
        roomy = expect_parts(function(probability, real, n), "expert", "weight")[0]
        expect(torch.equal(roomy, torch.where(real, wants, -1)), "All real tokens must go where they want to.", "<=.")
    expect_trains(function, probability, like=route_to_one, fixed=(real, capacity))


def balance_of_prototypes(logits: Float[Tensor, "n k e"], real: Bool[Tensor, "n"]) -> Float[Tensor, ""]:
    """The balance loss of k groups of e experts, of each of which a token chooses one; the mean over groups."""
    probability = logits.softmax(-1)
    e, count = logits.shape[-1], real.sum().clamp(min=1)
    chosen = F.one_hot(probability.argmax(-1), e)
    share = (chosen * real[:, None, None]).sum(0) / count
    likely = (probability * real[:, None, None]).sum(0) / count
    return (e * (share * likely).sum(-1)).mean()


@task(
    balance_of_prototypes,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([[[1.0986, 0.0], [1.0986, 0.0]], [[1.0986, 0.0], [0.0, 1.0986]]]), torch.ones(2).bool(), gives=1.25
    ),
)
def check_balance_of_prototypes(function: Callable) -> None:
    """E times the sum of shares times mean probabilities, in each group by itself, of real tokens."""
    n, k, e = between(11, 13), between(2, 3), between(4, 5)
    real = some_of(n, real=n - 4)
    lean = torch.linspace(0, 1.5, e)
    draws = [(numbers(n, k, e) + lean, real) for _ in range(3)]
    got = over(draws, function)

    def cost(
        rows: Tensor = real, scale: float = e, of: Callable = lambda z: z.softmax(-1), f: Callable | None = None
    ) -> Tensor:  # fmt: skip
        found = []
        for logits, _ in draws:
            p = of(logits)[rows]
            share = F.one_hot(p.argmax(-1), e).float().mean(0) if f is None else f(p)
            found.append((scale * (share * p.mean(0)).sum(-1)).mean())
        return torch.stack(found)

    tokens = int(real.sum())
    shares = "f counts, and is divided by how many tokens are real."
    expect_not(
        got, cost(scale=e * tokens), "f must be a share; here it is a count, so that more tokens cost more.", shares
    )
    expect_not(got, cost(scale=e / tokens), "f is a share already; here it is divided once more by the tokens.", shares)
    expect_not(got, cost(scale=1), "It must be E times the sum, so that even odds cost 1.", "E experts of a group.")
    more = "E is how many experts a group has, and groups are averaged; here it is k times as much."
    expect_not(got, cost(scale=e * k), more, "shape[-1], and the mean over k.")
    every = cost(of=lambda z: z.flatten(1).softmax(-1).view_as(z))
    expect_not(got, every, "Each group must have a softmax of its own; here all experts share one.", "softmax(-1).")
    expect_not(got, cost(f=lambda p: p.mean(0)), "f must count choices; here it is the mean probability.", "argmax.")
    everyone = cost(real | True)
    expect_not(got, everyone, "Padding must not count; here it does.", "real, in both means.")
    diluted = cost() * (tokens / n) ** 2, cost() * tokens / n
    expect_not(got, diluted, "Means must be over real tokens; here they are divided by all.", "real.sum().")
    one = cost(f=lambda p: F.one_hot(p.flatten(1).argmax(1), k * e).float().mean(0).view(k, e))
    expect_not(got, one, "A token chooses one expert in each group; here it chooses one in all.", "argmax(-1).")
    raw = cost(of=lambda z: z)
    expect_not(got, raw, "P must be probabilities; here it is logits.", "softmax(-1) first.")
    agreement(function, balance_of_prototypes)(draws, "It must be the mean over groups of E · Σ f · P.", shares)
    with case("Where all experts are equally likely"):
        expect_close(function(torch.zeros(n, k, e), real), 1.0, "It must cost 1.", "P is 1 / E, and f sums to 1.")
    with case("Where each group sends all to one expert"):
        sure = 200 * F.one_hot(torch.full((n, k), 2), e).float()
        expect_close(function(sure, real), float(e), "It must cost E.", "f and P are 1 there, and 0 elsewhere.")
    expect_trains(function, draws[0][0], like=balance_of_prototypes, fixed=(real,))
    with case("Without a real token"):
        expect_zero(function, draws[0][0], torch.zeros_like(real))
