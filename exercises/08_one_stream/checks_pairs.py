"""What one-stream fusion learns from pairs of text and picture: what each function must do, one property at a time."""

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
    expect_finite_gradient,
    expect_rows_differ,
    expect_seeded,
    expect_tensor,
    expect_trains,
    expect_whole,
    near,
    task,
)
from mmlearn.exercises.inputs import between, orthogonal, seeded, some_of
from mmlearn.objectives import cosine_cost, ipot, random_negatives, word_region_alignment


@task(
    random_negatives,
    difficulty=2,
    minutes=15,
    example=by_hand(
        torch.tensor([7, 7, 3]),
        seeded,
        gives=lambda got: got[:2].tolist() == [2, 2] and int(got[2]) in (0, 1),
        says="row 2 to rows 0 and 1, and one of these to row 2",
    ),
)
def check_random_negatives(function: Callable) -> None:
    """Never a caption that fits; all others, equally likely; all chance from a seed."""
    names = 100 + torch.randperm(50)[:3]
    caption_id = names[torch.tensor([0, 0, 1, 2, 0, 2, 2, 2]).roll(between(0, 7))]  # some neighbours fit
    b, calls = len(caption_id), 600

    def draw(times: int, seed: Generator | None = None) -> Tensor:
        generator, which = seeded(seed), "not the caption's id: the place of a row in the batch."
        rows = [expect_whole(function(caption_id, generator=generator), (b,), which) for _ in range(times)]
        drawn = torch.stack(rows)
        inside = ((drawn >= 0) & (drawn < b)).all()
        expect(inside, f"It must return numbers of rows, from 0 to {b - 1}.", which)
        return drawn

    drawn = draw(calls)
    expect((drawn != torch.arange(b)).all(), "A row must never be its own negative.", "its caption fits its picture.")
    expect(
        (caption_id[drawn] != caption_id).all(),
        "A negative must never have the row's own caption: in another row it fits this picture as well.",
        "allow only rows with caption_id[:, None] != caption_id; a shift or a shuffle does not look.",
    )
    anew = "It must draw anew with each call: this always returns the same rows."
    expect((drawn != drawn[0]).any(), anew, "pass generator to every draw, and make none of your own.")
    expect_seeded(lambda seed: draw(20, seed))
    halves = torch.tensor([4, 4, 4, 4, 9, 9, 9, 9])
    expect_rows_differ(lambda seed: function(halves, generator=seeded(seed))[:4])
    with case("Ids above 2²⁴"):
        large = 2**24 + torch.tensor([0, 1, 0, 1])
        other = expect_whole(function(large, generator=seeded()), (4,))
        hint = "compare whole numbers: as float32 two ids so large become one."
        expect((large[other] != large).all(), "Neighbouring ids are different captions.", hint)
    different = caption_id[:, None] != caption_id
    share = F.one_hot(drawn, b).float().mean(0)
    wanted = different / different.sum(1, keepdim=True)
    error = 7 * (wanted * (1 - wanted) / calls).sqrt()  # one of all shares is so far off once in 10⁷ times
    expect(
        ((share - wanted).abs() <= error + 1e-6).all(),
        "Every row with another caption must be equally likely.",
        "torch.multinomial takes a row of weights, here 1 or 0; do not draw a caption first, and not the nearest row.",
    )


AXES, REAL = torch.eye(2)[None], torch.ones(1, 2, dtype=torch.bool)


@task(ipot, difficulty=5, minutes=40, example=by_hand(1 - torch.eye(2)[None], REAL, REAL, gives=torch.eye(2)[None] / 2))
def check_ipot(function: Callable) -> None:
    """A plan with the right marginals that is the cheapest; padding gets nothing; no gradient."""
    b, t, p = 3, 5, between(6, 8)
    x_mask, y_mask = torch.ones(b, t, dtype=torch.bool), torch.ones(b, p, dtype=torch.bool)
    cost = cosine_cost(torch.randn(b, t, 6), torch.randn(b, p, 6))
    same = agreement(function, ipot)
    plan = expect_tensor(function(cost, x_mask, y_mask), cost.shape)
    expect((plan >= 0).all(), "Mass must not be negative.", "Q, δ and σ are all positive.")
    _check_marginals(function, cost, x_mask, y_mask)
    twin = F.one_hot(torch.stack([torch.randperm(t) for _ in range(b)]), t).float()
    plan = expect_tensor(function(1 - twin, x_mask, x_mask), twin.shape)
    low = "Mass must go where the cost is low; this goes where it is high."
    expect((plan * twin).sum((1, 2)).gt(0.1).all(), low, "exp(-C / β), with the minus.")
    expect(
        near(plan, twin / t, 1e-4),
        "Where each word has one region of cost 0, all its mass must go there, after 50 steps.",
        "each step starts from the plan before, Q = exp(-C/β) ⊙ T; without T it is Sinkhorn, and mass stays spread.",
    )
    _check_padding(function, cost)
    for beta, iterations in ((0.5, 1), (0.5, 3), (2.0, 3), (0.2, 10)):
        with case(f"With beta {beta} and iterations {iterations}"):
            same(
                (cost, x_mask, y_mask, beta, iterations),
                "It must be the plan of the algorithm.",
                "T = 1 and σ = 1/m at first; then Q, δ, σ and T in each of the steps, σ is kept for the next one.",
            )
    usual = "Without arguments β must be 0.5, with 50 steps."
    same((cost, x_mask, y_mask), usual, "beta: float = 0.5, iterations: int = 50")
    expect_constant(function(cost.clone().requires_grad_(), x_mask, y_mask))


def _check_marginals(function: Callable, cost: Tensor, x_mask: Tensor, y_mask: Tensor) -> None:
    rows, columns = (mask / mask.sum(1, keepdim=True) for mask in (x_mask, y_mask))
    plan = expect_tensor(function(cost, x_mask, y_mask, 0.5, 1), cost.shape)
    expect_close(
        plan.sum((1, 2)),
        torch.ones(len(cost)),
        "All mass together must be 1 for each pair.",
        "n words send 1/n each, m regions receive 1/m each; n and m count real ones only.",
    )
    expect_close(
        plan.sum(1),
        columns,
        "Each of m real regions must receive exactly 1/m, even after one step.",
        "regions are scaled last: σ = 1 / (m Qᵀδ), where Qᵀδ is a sum over words; m counts real regions only.",
    )
    plan = expect_tensor(function(cost, x_mask, y_mask, 0.5, 1000), cost.shape)
    expect(
        near(plan.sum(2), rows, 1e-3),
        "Each of n real words must send 1/n, after many steps.",
        "δ = 1 / (n Qσ), a sum over regions with the σ of the step before; n counts real words only.",
    )


def _check_padding(function: Callable, cost: Tensor) -> None:
    b, t, p = cost.shape
    x_mask, y_mask = some_of(b, t, real=[2, 3, 4]), some_of(b, p, real=[5, 3, 2])
    both = x_mask[:, :, None] & y_mask[:, None]
    with case("With padding"):
        before = expect_tensor(function(cost, x_mask, y_mask), cost.shape)
        nothing = "Padding must neither send nor receive anything."
        expect((before[~both] == 0).all(), nothing, "Q is 0 wherever the word or the region is padding.")
        _check_marginals(function, cost, x_mask, y_mask)
        other = torch.where(both, cost, 2 * torch.rand(cost.shape))
        expect_close(function(other, x_mask, y_mask), before, "The cost of padding must not matter.", "mask Q.")
    with case("With a text without words"):
        x_mask[1] = False
        plan = expect_tensor(function(cost, x_mask, y_mask), cost.shape)
        expect((plan[1] == 0).all(), "Nothing must move.", "divide by at least a tiny number: 0 / tiny is 0.")
        expect_close(plan[::2], before[::2], "Other pairs must not change.", "only that text has no words.")
    with case("With a picture without regions"):
        y_mask[2] = False
        plan = expect_tensor(function(cost, x_mask, y_mask), cost.shape)
        expect((plan[1:] == 0).all(), "Nothing must move.", "divide by at least a tiny number: 0 / tiny is 0.")


@task(
    word_region_alignment,
    difficulty=3,
    minutes=15,
    example=by_hand(AXES[:, :1], AXES, REAL[:, :1], REAL, gives=torch.tensor([0.5])),
)
def check_word_region_alignment(function: Callable) -> None:
    """One number a pair; 0 for the same set; padding; the plan is a constant."""
    b, t, p, d = 3, 4, between(5, 7), 8
    words, regions = torch.randn(b, t, d), torch.randn(b, p, d)
    every = torch.ones(b, 9, dtype=torch.bool)
    real = every[:, :t], every[:, :p]
    expect_tensor(function(words, regions, *real), (b,))
    _check_costs(function, every, t, p, d)
    masks = some_of(b, t, real=[1, 2, 3]), some_of(b, p, real=[4, 2, 3])
    with case("With padding"):
        noisy = [torch.where(m[..., None], x, torch.randn(x.shape)) for x, m in zip((words, regions), masks)]
        got = expect_tensor(function(words, regions, *masks), (b,))
        hint = "give ipot both masks, in their order."
        expect_close(function(*noisy, *masks), got, "What stands in padding must not matter.", hint)
    for both in (real, masks):
        for settings in ((), (0.2, 3)):
            agreement(function, word_region_alignment)(
                (words, regions, *both, *settings),
                "It must be Σ T C with the plan T of ipot, with this β and so many steps.",
                "pass beta and iterations on to ipot.",
            )
    with case("With padding of zeros, and a text without words"):
        empty = masks[0] & (torch.arange(b) != 1)[:, None]
        zeros = words * empty[..., None]
        expect_finite_gradient(function, zeros, regions, fixed=(empty, masks[1]))
        got = expect_tensor(function(zeros, regions, empty, masks[1]), (b,))
        expect(near(got[1], 0.0), "A text without words must cost 0.", "nothing moves there.")
    with case("Through the cost alone, because the plan counts as a constant"):
        expect_trains(function, words, regions, fixed=(*real, 0.5, 2), like=word_region_alignment)
    expect_trains(function, words, regions, fixed=masks, like=word_region_alignment)


def _check_costs(function: Callable, every: Tensor, t: int, p: int, d: int) -> None:
    b = len(every)
    u, axes, order = torch.randn(b, 1, d), orthogonal(b, d), torch.randperm(t)
    for y, wanted, what in ((u, 0.0, "the same direction"), (-u, 2.0, "opposite directions")):
        expect_close(
            function(u.repeat(1, t, 1), y.repeat(1, p, 1), every[:, :t], every[:, :p]),
            torch.full((b,), wanted),
            f"Where all words and regions have {what}, the cost must be {wanted:g}, at any number of them.",
            "Σ T C: a sum, since T sums to 1; C is 1 - cosine.",
        )
    expect_close(
        function(axes[:, :1], axes[:, :4], every[:, :1], every[:, :4]),
        torch.full((b,), 0.75),
        "One word must pay the mean over four regions, of which one is its twin: 3/4.",
        "each region receives 1/m from somewhere; it is not the cost of the best region.",
    )
    expect(
        near(expect_tensor(function(axes[:, :t], 2 * axes[:, order], every[:, :t], every[:, :t]), (b,)), 0.0, 1e-3),
        "The same vectors in another order must cost 0: the plan finds each its twin.",
        "the plan of ipot for this cost, and not the same mass everywhere.",
    )
