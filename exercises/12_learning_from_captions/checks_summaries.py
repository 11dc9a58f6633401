"""Summaries of what was said and shown: a gate, three phases, and targets that nobody wrote.

What is asked for is written here, above its check.
"""

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
    expect_not,
    expect_parts,
    expect_tensor,
    expect_trains,
    expect_whole,
    task,
)
from mmlearn.exercises.inputs import between, numbers, seeded


def forget_gate(
    text: Float[Tensor, "b t d"],
    seen: Float[Tensor, "b t d"],
    weight: Float[Tensor, "d two_d"],
    bias: Float[Tensor, "d"],
) -> Float[Tensor, "b t d"]:
    """What a text keeps of what it has seen."""
    return F.linear(torch.cat([text, seen], -1), weight, bias).sigmoid() * seen


@task(
    forget_gate,
    difficulty=2,
    minutes=10,
    example=by_hand(
        torch.tensor([[[2.0]]]), torch.tensor([[[4.0]]]), torch.tensor([[0.5493, 0.0]]), torch.tensor([0.0]),
        gives=torch.tensor([[[3.0]]]),
    ),
)  # fmt: skip
def check_forget_gate(function: Callable) -> None:
    """A gate for each feature, from both, on what is seen."""
    b, t, d = 2, between(4, 6), between(5, 8)
    text, seen, weight, bias = numbers(b, t, d), numbers(b, t, d), numbers(d, 2 * d), numbers(d)
    got = expect_tensor(function(text, seen, weight, bias), (b, t, d))
    score = F.linear(torch.cat([text, seen], -1), weight, bias)
    gate = score.sigmoid()
    sig = "sigmoid of the linear layer, times what is seen."
    expect_not(got, gate, "What is seen must go through the gate; this is the gate itself.", sig)
    expect_not(got, gate * text, "The gate is for what is seen; here it is for the text.", sig)
    expect_not(got, (1 - gate) * seen, "An open gate must let through; here it shuts out.", "F · seen, not (1 - F).")
    expect_not(got, score.tanh() * seen, "The gate must lie between 0 and 1; here it is a tanh.", sig)
    expect_not(got, score * seen, "The gate must lie between 0 and 1; here it has no sigmoid.", sig)
    expect_not(got, score.softmax(-1) * seen, "Each feature must have its own gate; here they share 1.", sig)
    expect_not(got, text + gate * seen, "Only what passes the gate must come back; here the text is added.", sig)
    turned = F.linear(torch.cat([seen, text], -1), weight, bias).sigmoid() * seen
    expect_not(got, turned, "The text must stand before what is seen in the gate's input.", "cat([text, seen], -1).")
    bare = F.linear(torch.cat([text, seen], -1), weight).sigmoid() * seen
    expect_not(got, bare, "The bias must count.", "F.linear(x, weight, bias).")
    same = agreement(function, forget_gate, tolerance=1e-4)
    same((text, seen, weight, bias), "It must be sigmoid(W [text; seen] + b) · seen.", sig)
    expect_trains(function, text, seen, weight, bias, like=forget_gate)


TEXT_ENCODER, DECODER, IMAGE_ENCODER, TABLE_ENCODER = range(4)


def what_learns(part: Int[Tensor, "n"], phase: int) -> Bool[Tensor, "n"]:
    """Which parameters learn in a phase, by the part that they belong to."""
    learns = {1: [TEXT_ENCODER, DECODER], 2: [IMAGE_ENCODER, TABLE_ENCODER], 3: list(range(4))}
    return torch.isin(part, torch.tensor(learns[phase]))


@task(
    what_learns,
    difficulty=2,
    minutes=10,
    example=by_hand(torch.tensor([0, 1, 2, 3]), 2, gives=torch.tensor([False, False, True, True])),
)
def check_what_learns(function: Callable) -> None:
    """Text first, then what is not text behind the same decoder, then all."""
    part = torch.cat([torch.arange(4), torch.randint(4, (between(20, 30),), generator=seeded())])
    with case("In phase 1"):
        first = expect_boolean(function(part, 1), part.shape)
        expect(first[part <= DECODER].all(), "Text encoder and decoder must learn.", "parts 0 and 1.")
        expect(not first[part > DECODER].any(), "There are only texts yet: no other encoder learns.", "not 2, not 3.")
    with case("In phase 2"):
        second = expect_boolean(function(part, 2), part.shape)
        held = "The decoder must stay as it is: others are to speak its language."
        expect(not second[part == DECODER].any(), held, "not 1.")
        expect(not second[part == TEXT_ENCODER].any(), "The text encoder must stay: no text is read.", "not 0.")
        expect(second[part == IMAGE_ENCODER].all(), "The picture encoder must learn.", "part 2.")
        expect(
            second[part == TABLE_ENCODER].all(), "The table encoder must learn, as that of pictures does.", "part 3."
        )
    with case("In phase 3"):
        third = expect_boolean(function(part, 3), part.shape)
        expect(third.all(), "All must learn together.", "every part.")


def leave_one_out(reviews: Int[Tensor, "n t"]) -> tuple[Int[Tensor, "n m t"], Int[Tensor, "n t"]]:
    """Each review in its turn is what is to be written, and all others are read."""
    n = len(reviews)
    others = torch.arange(n)[None].expand(n, n)[~torch.eye(n, dtype=torch.bool)].view(n, n - 1)
    return reviews[others], reviews.clone()


@task(
    leave_one_out,
    difficulty=2,
    minutes=15,
    example=by_hand(
        torch.tensor([[5], [6], [7]]),
        gives=(torch.tensor([[[6], [7]], [[5], [7]], [[5], [6]]]), torch.tensor([[5], [6], [7]])),
    ),
)  # fmt: skip
def check_leave_one_out(function: Callable) -> None:
    """No review is among its own sources, and all others are, in their order."""
    n, t = between(4, 6), between(3, 5)
    reviews = torch.randperm(n * t, generator=seeded()).view(n, t)
    sources, targets = expect_parts(function(reviews), "sources", "targets")
    expect_whole(sources, (n, n - 1, t)), expect_whole(targets, (n, t))
    rows = torch.arange(n)
    expect(torch.equal(targets, reviews), "Target i must be review i.", "the reviews as they are.")
    own = (sources == reviews[:, None]).all(-1).any(1)
    expect(not own.any(), "No review must be read that is to be written: it would be copied.", "j ≠ i.")
    alike = (sources == sources[:1]).all()
    expect(not alike, "Each target has other sources; here all have the same ones.", "leave out row i for target i.")
    kept = torch.stack([reviews[rows != i] for i in range(n)])
    missing = (kept[:, :, None] == sources[:, None]).all(-1).any(-1).all()
    expect(missing, "All other reviews must be read; here one is missing.", "n - 1 different ones.")
    expect(
        torch.equal(sources, kept), "Sources must stand in the order of the reviews.", "j from 0 to n - 1, without i."
    )
