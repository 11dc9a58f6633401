"""A gate and a graph: what each function must do, told one property at a time."""

from collections.abc import Callable
from itertools import combinations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_close,
    expect_not,
    expect_tensor,
    expect_trains,
    task,
)
from mmlearn.exercises.inputs import between, numbers

# What belongs to the question, and how strongly.


def attention_gate(
    query: Float[Tensor, "b q d"],
    found: Float[Tensor, "b q d"],
    information: Float[Tensor, "d d_and_d"],
    gate: Float[Tensor, "d d_and_d"],
) -> Float[Tensor, "b q d"]:
    """What the library's attention on attention makes of a query and of what was found; there with biases."""
    both = torch.cat([query, found], -1)
    return torch.sigmoid(both @ gate.T) * (both @ information.T)


@task(
    attention_gate,
    difficulty=2,
    minutes=10,
    example=by_hand(
        torch.ones(1, 1, 1), torch.ones(1, 1, 1), torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0986, 0.0]]),
        gives=torch.tensor([[[2.25]]]),
    ),
)  # fmt: skip
def check_attention_gate(function: Callable) -> None:
    """Both see the query and what was found; the gate alone is between 0 and 1."""
    b, q, d = between(3, 4), between(5, 6), between(7, 8)
    given = numbers(b, q, d), numbers(b, q, d), 0.5 * numbers(d, 2 * d), 0.5 * numbers(d, 2 * d)
    query, found, w_i, w_g = given
    got = expect_tensor(function(*given), (b, q, d))
    both = torch.cat([query, found], -1)
    i, g = both @ w_i.T, both @ w_g.T
    hint = "torch.sigmoid(both @ gate.T) * (both @ information.T), where both = [query; found]."
    expect_not(got, i, "A gate must decide how much is let through; here all is.", hint)
    expect_not(got, g.sigmoid() * found, "The gate is on the information; here it is on what was found.", hint)
    expect_not(got, g.sigmoid() * i.tanh(), "Information has no tanh; here it has one.", hint)
    expect_not(got, g * i, "The gate must pass a sigmoid; here it is linear.", hint)
    expect_not(got, g.softmax(-1) * i, "Each number has a gate of its own; here they share a softmax.", hint)
    expect_not(got, query + g.sigmoid() * i, "The query is added later, by the layer; here it is added.", hint)
    agreement(function, attention_gate)(given, "It must be gate ⊙ information, of [query; found].", hint)
    expect_trains(function, *given, like=attention_gate)


def weighed_vertex(
    parts: Float[Tensor, "b p d"], logits: Float[Tensor, "b p"], weight: Float[Tensor, "e p_times_d"]
) -> Float[Tensor, "b e"]:
    """A vertex of the library's dynamic fusion graph; there the weight is a layer with a bias."""
    return torch.tanh((torch.sigmoid(logits)[..., None] * parts).flatten(1) @ weight.T)


@task(
    weighed_vertex,
    difficulty=2,
    minutes=10,
    example=by_hand(
        torch.tensor([[[2.0], [1.0]]]), torch.tensor([[0.0, 1.0986]]), torch.tensor([[1.0, -1.0]]),
        gives=torch.tensor([[0.2449]]),
    ),
)  # fmt: skip
def check_weighed_vertex(function: Callable) -> None:
    """An efficacy for each part, from 0 to 1, that does not take from the others."""
    b, p, d, e = between(4, 5), 3, between(6, 7), between(8, 9)
    parts, logits, weight = numbers(b, p, d), numbers(b, p), 0.3 * numbers(e, p * d)
    got = expect_tensor(function(parts, logits, weight), (b, e))

    def made(strength: Tensor) -> Tensor:
        return (strength[..., None] * parts).flatten(1) @ weight.T

    hint = "(torch.sigmoid(logits)[..., None] * parts).flatten(1) @ weight.T, and tanh."
    strength = logits.sigmoid()
    share = "Efficacies do not add up to 1; here they share a softmax."
    expect_not(got, made(logits.softmax(1)).tanh(), share, hint)
    expect_not(got, made(logits).tanh(), "An efficacy is from 0 to 1; here it is linear.", hint)
    expect_not(got, made(torch.ones(b, p)).tanh(), "Each part must be weighed; here none is.", hint)
    expect_not(got, made(strength), "A vertex must pass a tanh; here it is linear.", hint)
    late = (strength[..., None] * parts).mT.flatten(1) @ weight.T
    expect_not(got, late.tanh(), "Parts stand one behind the other; here their numbers take turns.", ".flatten(1).")
    turned = made(1 - strength).tanh()
    expect_not(got, turned, "A high logit lets a part through; here it keeps it out.", hint)
    agreement(function, weighed_vertex)((parts, logits, weight), "It must be tanh of what is weighed.", hint)
    expect_trains(function, parts, logits, weight, like=weighed_vertex)


def graph_efficacies(logits: Float[Tensor, "b e"], members: Bool[Tensor, "v m"]) -> Float[Tensor, "b v v"]:
    """The efficacies between the vertices of the library's dynamic fusion graph, as a table."""
    inside = members.float()
    within = inside @ (1 - inside).T == 0  # (part, whole): nobody of the part is missing in the whole
    into = (within & ~within.T).T.expand(len(logits), -1, -1)  # (b, whole, part)
    strength = logits.new_zeros(into.shape).masked_scatter(into, torch.sigmoid(logits))
    return strength.transpose(1, 2)


def all_subsets(m: int) -> Tensor:
    """All subsets of m modalities but the empty one, small ones first: (2ᵐ - 1, m)."""
    every = [subset for size in range(1, m + 1) for subset in combinations(range(m), size)]
    return torch.tensor([[i in subset for i in range(m)] for subset in every])


@task(
    graph_efficacies,
    difficulty=4,
    minutes=20,
    example=by_hand(
        torch.tensor([[0.0, 1.0986]]), all_subsets(2),
        gives=torch.tensor([[[0.0, 0.0, 0.5], [0.0, 0.0, 0.75], [0.0, 0.0, 0.0]]]),
    ),
)  # fmt: skip
def check_graph_efficacies(function: Callable) -> None:
    """From each part to each larger whole that holds it, and nowhere else."""
    for m in (3, 4):
        with case(f"For {m} modalities"):
            b, members = between(2, 3), all_subsets(m)
            v = len(members)
            sets = [set(row.nonzero()[:, 0].tolist()) for row in members]
            edges = [(i, j) for j in range(v) for i in range(v) if sets[i] < sets[j]]
            logits = 0.3 + numbers(b, len(edges)).abs()
            got = expect_tensor(function(logits, members), (b, v, v))
            right = torch.zeros(b, v, v)
            parts, wholes = torch.tensor(edges).T
            right[:, parts, wholes] = logits.sigmoid()
            order = "for each whole in turn, its parts in turn: sets[i] < sets[j]."
            expect_not(
                got, right.mT, "The part must come first, then the whole; here the whole does.", "[:, part, whole]."
            )
            linear = right.clone()
            linear[:, parts, wholes] = logits
            expect_not(got, linear, "An efficacy is from 0 to 1; here it is a logit.", "torch.sigmoid(logits).")
            half = right.masked_fill(right == 0, 0.5)
            expect_not(
                got, half, "Without an edge it must be 0; here it is the sigmoid of 0.", "sigmoid first, then position."
            )
            other = torch.zeros(b, v, v)
            by_part = torch.tensor(sorted(edges)).T
            other[:, by_part[0], by_part[1]] = logits.sigmoid()
            expect_not(got, other, "Edges must be in the order of their wholes; here it is that of their parts.", order)
            own = got.diagonal(dim1=1, dim2=2)
            expect(not own.any(), "No vertex feeds itself; here one does.", order)
            single = right * (members.sum(1) == 1)[:, None]
            expect_not(got, single, "Pairs feed what holds them, too; here only single modalities do.", order)
            expect_close(
                got, right, "It must be the efficacy from each part to each larger whole that holds it.", order
            )
            expect_trains(function, logits, like=graph_efficacies, fixed=(members,))
            with case("with vertices in another order"):
                other_way = members[torch.randperm(v)], members.flip(0)
                whole = "as in members, whatever its order: a whole may come before its parts."
                for there in other_way:
                    table = expect_tensor(function(logits, there), (b, v, v))
                    expect_close(table, graph_efficacies(logits, there), "It must follow the rows of members.", whole)
