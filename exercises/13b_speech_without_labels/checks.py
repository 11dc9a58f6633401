"""Speech without labels: what each function must do, told one property at a time."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_boolean,
    expect_close,
    expect_rows_differ,
    expect_seeded,
    expect_share,
    expect_tensor,
    expect_trains,
    expect_whole,
    task,
)
from mmlearn.exercises.inputs import between, first_of, seeded
from mmlearn.objectives import code_perplexity, mask_spans, sample_distractors

# Which codes are in use.


HALVES = torch.eye(4)[[0, 0, 2, 2]][:, None]


@task(code_perplexity, difficulty=1, minutes=10, example=by_hand(HALVES, gives=torch.tensor([2.0])))
def check_code_perplexity(function: Callable) -> None:
    """1 where one code has all, all of them where each is as frequent; the mean comes first."""
    n, groups, entries = 60, 2, between(5, 9)
    probability = (2 * torch.randn(n, groups, entries)).softmax(-1)
    same = agreement(function, code_perplexity)
    expect_tensor(function(probability), (groups,))
    one = F.one_hot(torch.full((n, groups), entries - 1), entries).float()
    hint = "0 ln 0 counts as 0: torch.special.entr, torch.xlogy."
    expect_close(function(one), torch.ones(groups), "Where one entry has all, 1 must be in use.", hint)
    even = torch.full((n, groups, entries), 1 / entries)
    hint = "exp of -Σ p ln p: mind the sign, and the base of the logarithm."
    expect_close(function(even), torch.full((groups,), float(entries)), f"Of {entries} even ones all must be.", hint)
    turns = F.one_hot(torch.arange(entries).repeat(6)[:, None].expand(-1, groups), entries).float()
    expect_close(
        function(turns),
        torch.full((groups,), float(entries)),
        "Frames that are sure, each of another entry, must use all entries together.",
        "first the mean over frames, and the entropy of that mean; not the mean of entropies.",
    )
    same((probability,), "It must be the exponential of the entropy of the mean, for each codebook.", "by hand, n = 2.")
    expect_trains(function, probability, like=code_perplexity)


# What is hidden.


def _one_span(masked: Tensor) -> bool:
    return int(masked.sum()) == 3 and int(masked.int().diff().abs().sum()) <= 2


@task(
    mask_spans,
    difficulty=4,
    minutes=25,
    example=by_hand(
        torch.ones(1, 7, dtype=torch.bool),
        generator=seeded,
        probability=0.0,
        length=3,
        gives=_one_span,
        says="one span of three frames",
    ),
)
def check_mask_spans(function: Callable) -> None:
    """Spans of one length, within the clip, as many as were asked for, and never everything."""

    def hide(frames: list[int], seed: Generator | None = None, pad: int = 0, **settings) -> Tensor:
        real = first_of(max(frames) + pad, frames)
        masked = expect_boolean(function(real, generator=seeded(seed), **settings), real.shape)
        hint = "spans begin at 0 … frames - length of their own clip."
        expect(not (masked & ~real).any(), "Padding must never be hidden: it is no part of the clip.", hint)
        return masked

    length = between(4, 7)
    one = hide([40] * 1000, probability=0.0, length=length)
    expect(one.any(1).all(), "At least one span of each clip must be hidden.", "clamp the number of spans at 1.")
    expect(
        (one.sum(1) == length).all() and (one.int().diff(dim=1).abs().sum(1) <= 2).all(),
        f"With one span of {length} frames just {length} frames in a row must be hidden; this hides "
        f"{int(one.sum(1).min())} to {int(one.sum(1).max())}.",
        "a start is drawn from 0 … frames - length, so that the whole span fits; it hides length frames.",
    )
    first, last = (int(position) for position in one.int().argmax(1).aminmax())
    expect(
        (first, last) == (0, 40 - length),
        f"Spans must begin anywhere where they fit, from 0 to {40 - length}; these begin at {first} to {last}.",
        "randint leaves out its upper end; the first and the last position count too.",
    )
    _check_how_many(hide)
    short = hide([5, 10, 40], probability=0.5, length=10)
    expect(not short[:2].any(), "A clip of no more frames than a span must be left whole.", "no start fits there.")
    expect_rows_differ(lambda seed: hide([40] * 30, seed, probability=0.1, length=length), "clip")
    expect_seeded(lambda seed: hide([40] * 1000, seed, probability=0.1, length=length))


def _check_how_many(hide: Callable) -> None:
    fewest, most = (int(count) for count in hide([250] * 60, probability=0.3, length=1).sum(1).aminmax())
    expect(
        fewest >= 74 and most <= 76,
        f"Of 250 frames a share of 0.3, just 75, must begin a span; here it is {fewest} to {most}.",
        "draw that many different starts, such as the first of a shuffled order; not each frame by a coin.",
    )
    usual = hide([1000] * 60).float().mean().item()
    expect(
        0.45 < usual < 0.52,
        f"Without further arguments about 49 % of a long clip must be hidden; here it is {usual:.0%}.",
        "probability 0.065 is the share of frames that begin a span of 10; spans may overlap.",
    )
    hide([9, 30, 60, 200] * 10, pad=5, probability=0.3, length=5)
    rare = hide([30] * 400, pad=200, probability=0.05, length=1).sum(1).float().mean().item()
    expect(
        1.3 < rare < 1.7,
        f"Of 30 frames a share of 0.05 is 1.5, so 1 or 2 by chance; here it is {rare:.2f} in the mean.",
        "the number of frames is the clip's own, without padding; round down p · frames + a random number.",
    )
    rare = hide([30] * 400 + [200] * 2, probability=0.04, length=1)[:400].sum(1).float().mean().item()
    chance = f"Of 30 frames a share of 0.04 is 1.2, so 2 in a fifth of the cases; here it is {rare:.2f} in the mean."
    expect(1.08 < rare < 1.32, chance, "⌊p · frames + u⌋, with the frames of each clip, not of the longest.")
    frames = torch.randint(12, 60, (80,))
    visible = (first_of(60, frames)[:, : int(frames.max())] & ~hide(frames.tolist(), probability=1.0, length=10)).any(1)
    expect(visible.all(), "Something of each clip must stay visible, also with probability 1.", "limit the spans.")
    most = "at most ⌊(n - 1) / length⌋ spans, no fewer and no more."
    singles = hide([30] * 20, probability=1.0, length=1).sum(1)
    expect((singles == 29).all(), "With spans of one frame and probability 1, all but one must be hidden.", most)
    thrice = hide([31] * 200, probability=1.0, length=10).sum(1)
    expect(20 < thrice.max() <= 30, "A clip of 31 frames must have three spans of 10 at probability 1.", most)
    twice = hide([20] * 200, probability=1.0, length=10).sum(1)
    expect((twice == 10).all(), "A clip of just twice the length must have one span, whatever the share.", most)


@task(
    sample_distractors,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([[False, True, False, True, True]]),
        6,
        generator=seeded,
        gives=lambda got: set(got[0, 3].tolist()) <= {1, 4},
        says="1 or 4 at frame 3",
    ),
)
def check_sample_distractors(function: Callable) -> None:
    """Other hidden frames of the same clip, each as likely, never its own."""
    b, s, count = 6, 30, between(8, 12)
    masked = torch.rand(b, s) < 0.4
    masked[:, :3], masked[:, -2:] = True, False
    masked[1] = torch.arange(s) < 5

    def draw(masked: Tensor, count: int = count, seed: Generator | None = None) -> Tensor:
        got = expect_whole(function(masked, count, generator=seeded(seed)), (*masked.shape, count))
        positions = got[masked]  # what stands elsewhere means nothing
        expect(
            ((positions >= 0) & (positions < masked.shape[1])).all(),
            f"Places are of frames of the same clip, from 0 to {masked.shape[1] - 1}.",
            "draw for each clip; a position counts from the clip's first frame.",
        )
        return got

    many = torch.cat([draw(masked) for _ in range(30)], dim=2)  # (b, s, 30 · count)
    hidden = torch.stack([row[position] for row, position in zip(masked, many)])
    expect(
        hidden[masked].all(),
        "Distractors must be hidden frames of the same clip.",
        "which clip's positions are they? Count among the hidden frames, then look up where that one is.",
    )
    own = many == torch.arange(s)[:, None]
    expect(
        not own[masked].any(),
        "A frame must never be its own distractor: then the right answer would count as wrong.",
        "draw one of the hidden - 1 others: what is at or after its own number moves up by one.",
    )
    _check_odds(draw(masked[1:2], 4000)[0, :5])
    pairs = draw(masked[1:2].expand(600, s), 2)[:, 0]
    twice = "The same distractor may come twice: of two of four it does in a quarter of the cases."
    expect_share(pairs[:, 0] == pairs[:, 1], 1 / 4, twice, "draw each anew, with replacement.")
    with case("Where one frame of a clip is hidden, or none"):
        draw(torch.arange(s) < torch.tensor([[1], [0], [5]]))
    alike = masked[1:2].expand(20, s)
    expect_rows_differ(lambda seed: draw(alike, seed=seed)[:, :5], "clip")
    expect_seeded(lambda seed: draw(masked, seed=seed)[masked])


def _check_odds(drawn: Tensor) -> None:
    """Of five hidden frames, each of which draws the four others many times."""
    expect(
        (drawn[0] != drawn[0, 0]).any(),
        "Distractors of a frame must be drawn one by one; here all are the same.",
        "one random number for each of them.",
    )
    share = F.one_hot(drawn, 5).float().mean(1)
    expect(
        (share - (1 - torch.eye(5)) / 4).abs().max() < 0.05,
        f"Each other hidden frame must be as likely, {1 / 4:.2f} here; the first frame draws the others with "
        f"{', '.join(f'{x:.2f}' for x in share[0, 1:])}.",
        "evenly among the others; no fixed neighbour, and nothing that is moved off its own position counts twice.",
    )
    expect(
        not torch.equal(drawn[0] - (drawn[0] > 0).long(), drawn[1] - (drawn[1] > 1).long()),
        "Each frame must draw its own distractors.",
        "a random number for each frame too, (b, s, count) of them.",
    )
    steps = (drawn - torch.arange(5)[:, None]) % 5
    expect(
        not torch.equal(steps, steps[:1].expand_as(steps)),
        "Each frame must draw its own distractors; here all take the same steps from their own.",
        "a random number for each frame too, (b, s, count) of them.",
    )
