"""Fusion by votes: how much a sum of one vote for each modality can say."""

from collections.abc import Callable
from itertools import combinations, permutations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmlearn.exercises import by_hand, case, expect, expect_number, expect_one_number, near, task
from mmlearn.exercises.inputs import numbers


def most_right_by_votes(label: Bool[Tensor, "r k"], share: Float[Tensor, "r k"]) -> float:
    """Of all tables those that votes can say, whose rows lie within each other, and the best of these."""
    r, k = label.shape
    tables = ((torch.arange(2 ** (r * k))[:, None] >> torch.arange(r * k)) & 1).bool().view(-1, r, k)
    can = torch.ones(len(tables), dtype=torch.bool)
    for i, j in combinations(range(r), 2):
        one, other = tables[:, i], tables[:, j]
        can &= ~((one & ~other).any(1) & (other & ~one).any(1))
    return float(((tables[can] == label) * share).sum((1, 2)).max())


@task(
    most_right_by_votes,
    difficulty=4,
    minutes=25,
    example=by_hand(
        torch.tensor([[False, True], [True, False]]), torch.tensor([[0.4, 0.1], [0.3, 0.2]]), gives=0.9,
    ),
)  # fmt: skip
def check_most_right_by_votes(function: Callable) -> None:
    """XOR loses a pair, whatever the votes are; a staircase loses none."""
    xor = torch.eye(2) == 0
    share = numbers(2, 2).softmax(1) * torch.tensor([[0.45], [0.55]])
    got = torch.tensor(expect_one_number(function(xor, share)))
    every = "try all votes: f from 0 to r for each row, and g from -0.5 to -0.5 - r for each column."
    said = "No sum of votes says XOR of all four pairs; here all are right."
    expect(not near(got, 1.0), said, every)
    expect(not near(got, 0.75), "Each pair must count as often as it occurs; here all count alike.", "add up share.")
    rows, columns = ((xor * share).sum(i) for i in (1, 0))
    one = [torch.maximum(yes, share.sum(i) - yes).sum() for yes, i in ((rows, 1), (columns, 0))]
    expect(not near(got, max(one)), "Both must vote; here one modality decides alone.", every)
    expect(not near(got, share.max()), "Three pairs of four can be right; here it is one alone.", every)
    expect_number(got, float(1 - share.min()), "Of XOR all but the rarest pair must be right.", every)
    for r in (2, 3):
        stairs = torch.ones(r, r + 1).tril().bool()  # one column always says yes, and one never
        even = torch.full((r, r + 1), 1 / (r * r + r))
        with case("For a staircase of labels"):
            expect_number(function(stairs, even), 1.0, "Votes of all sizes must be tried: all can be right.", every)
    for shape in ((2, 3), (3, 3), (4, 2)):
        with case(f"For a table of {shape[0]} and {shape[1]} values"):
            for _ in range(3):
                table, often = numbers(*shape) > 0, numbers(*shape).flatten().softmax(0).view(shape)
                wanted = most_right_by_votes(table, often)
                expect_number(function(table, often), wanted, "It must be the best of all votes.", every)
    with case("For a table whose rows must be ordered all at once"):
        table = torch.tensor([[True, True, False], [False, True, True], [False, False, True]])
        often = torch.tensor([[5.0, 8.0, 8.0], [4.0, 5.0, 5.0], [2.0, 6.0, 9.0]]) / 52
        for order in permutations(range(3)):
            got = function(table[list(order)], often[list(order)])
            expect_number(got, 44 / 52, "It must be the best of all votes.", every)
