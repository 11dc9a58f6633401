"""Speech without labels: what each function must do, told one property at a time."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlearn.exercises import (
    agreement,
    expect,
    expect_boolean,
    expect_close,
    expect_log,
    expect_not,
    expect_seeded,
    expect_tensor,
    expect_trains,
    expect_whole,
    expect_zero,
    near,
    task,
)
from mmlearn.exercises.inputs import between, first_of, seeded, uniform
from mmlearn.models.speech.quantiser import straight_through
from mmlearn.objectives import distractor_contrast, mask_spans, masked_cluster, sample_distractors
from mmlearn.objectives.masked import IGNORED

# What is hidden.


@task(mask_spans, difficulty=4, minutes=25)
def check_mask_spans(function: Callable) -> None:
    """Spans of one length, within the clip, as many as were asked for, and never everything."""

    def hide(frames: list[int], seed: int | None = None, pad: int = 0, **settings) -> Tensor:
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
    first, last = (int(place) for place in one.int().argmax(1).aminmax())
    expect(
        (first, last) == (0, 40 - length),
        f"Spans must begin anywhere where they fit, from 0 to {40 - length}; these begin at {first} to {last}.",
        "randint leaves out its upper end; the first and the last place count too.",
    )
    _check_how_many(hide)
    short = hide([5, 10, 40], probability=0.5, length=10)
    expect(not short[:2].any(), "A clip of no more frames than a span must be left whole.", "no start fits there.")
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
    frames = torch.randint(12, 60, (80,))
    visible = (first_of(60, frames)[:, : int(frames.max())] & ~hide(frames.tolist(), probability=1.0, length=10)).any(1)
    expect(visible.all(), "Something of each clip must stay visible, also with probability 1.", "limit the spans.")


@task(sample_distractors, difficulty=3, minutes=20)
def check_sample_distractors(function: Callable) -> None:
    """Other hidden frames of the same clip, each as likely, never its own."""
    b, s, count = 6, 30, between(8, 12)
    masked = torch.rand(b, s) < 0.4
    masked[:, :3], masked[:, -2:] = True, False
    masked[1] = torch.arange(s) < 5

    def draw(masked: Tensor, count: int = count, seed: int | None = None) -> Tensor:
        got = expect_whole(function(masked, count, generator=seeded(seed)), (*masked.shape, count))
        places = got[masked]  # what stands elsewhere means nothing
        expect(
            ((places >= 0) & (places < masked.shape[1])).all(),
            f"Places are of frames of the same clip, from 0 to {masked.shape[1] - 1}.",
            "draw for each clip; a place counts from the clip's first frame.",
        )
        return got

    many = torch.cat([draw(masked) for _ in range(30)], dim=2)  # (b, s, 30 · count)
    hidden = torch.stack([row[place] for row, place in zip(masked, many)])
    expect(
        hidden[masked].all(),
        "Distractors must be hidden frames of the same clip.",
        "which clip's places are they? Count among the hidden frames, then look up where that one is.",
    )
    own = many == torch.arange(s)[:, None]
    expect(
        not own[masked].any(),
        "A frame must never be its own distractor: then the right answer would count as wrong.",
        "draw one of the hidden - 1 others: what is at or after its own number moves up by one.",
    )
    _check_odds(draw(masked[1:2], 4000)[0, :5])
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
        "evenly among the others; no fixed neighbour, and nothing that is moved off its own place counts twice.",
    )
    expect(
        not torch.equal(drawn[0] - (drawn[0] > 0).long(), drawn[1] - (drawn[1] > 1).long()),
        "Each frame must draw its own distractors.",
        "a random number for each frame too, (b, s, count) of them.",
    )


# What is guessed.


@task(straight_through, difficulty=3, minutes=15)
def check_straight_through(function: Callable) -> None:
    """One-hot going forward, the gradient of a softmax going back."""
    n, v, temperature = 40, 7, uniform(0.5, 1.5)
    logits, noise = torch.randn(n, v), 2 * torch.randn(n, v)
    got = expect_tensor(function(logits, noise, temperature), (n, v))
    hot = near(got.max(-1).values, 1.0) and near(got.sum(-1), 1.0)
    expect(hot, "Going forward it must be one-hot: 1 at the choice and 0 elsewhere.", "one_hot of the argmax.")
    without = torch.equal(got.argmax(-1), logits.argmax(-1))
    expect(not without, "The choice must be a sample: noise is added before it.", "argmax of logits + noise.")
    largest = F.one_hot((logits + noise).argmax(-1), v).float()
    expect_close(
        got, largest, "The choice must be the largest of logits + noise.", "it is the same at any temperature."
    )
    expect_trains(function, logits, fixed=(noise, temperature))

    def gradient(function: Callable, temperature: float) -> Tensor:
        leaf = logits.clone().requires_grad_()
        return torch.autograd.grad((function(leaf, noise, temperature) * towards).sum(), leaf)[0]

    towards = torch.randn(n, v)
    reached = gradient(function, 1.0)
    expect_not(
        reached,
        towards,
        "Going back it must be a softmax, not the identity.",
        "what you add and subtract is the softmax, not the logits.",
    )
    expect_close(
        reached,
        gradient(straight_through, 1.0),
        "Going back it must have the gradient of softmax(logits + noise).",
        "the same noise in both, and nothing of the one-hot choice multiplied in.",
    )
    expect_close(
        gradient(function, temperature),
        gradient(straight_through, temperature),
        f"Going back the softmax must have temperature {temperature:.2f}.",
        "(logits + noise) / temperature: the sum is divided.",
    )


@task(distractor_contrast, difficulty=3, minutes=20)
def check_distractor_contrast(function: Callable) -> None:
    """ln(1 + k) of nothing, cosines, hidden frames only, and no distractor that is the target."""
    b, s, d, k = 3, 12, 16, between(5, 8)
    masked = first_of(s, [9, 6, 10])
    distractor = sample_distractors(masked, k, generator=seeded())
    context, target = torch.randn(b, s, d), torch.randn(b, s, d)
    codes = torch.arange(s).expand(b, s)[..., None].repeat(1, 1, 2)  # no two frames sound alike
    rest = codes, distractor, masked
    same = agreement(function, distractor_contrast)
    got = expect_tensor(function(context, target, *rest), ())
    expect_not(
        got,
        distractor_contrast(target, context, *rest),
        "The context of the frame must pick among the sounds of others; here it is the other way.",
        "candidates are target[distractor]; the context is that of the hidden frame.",
    )
    same(
        (context, torch.randn(b, 1, d).repeat(1, s, 1), *rest),
        f"Where all sounds are alike it must cost ln(1 + k) = ln {1 + k}.",
        "the target is one of the 1 + k candidates, and the loss the mean over hidden frames of -log softmax.",
    )
    expect(
        near(function(3 * context, target, *rest), got) and near(function(context, 5 * target, *rest), got),
        "How long vectors are must not matter: similarity is the cosine.",
        "F.normalize(…, dim=-1), both.",
    )
    expect_close(
        function(torch.where(masked[..., None], context, 9 * torch.randn(b, s, d)), target, *rest),
        got,
        "What the context says at frames that are not hidden must not matter.",
        "mean over the hidden frames only.",
    )
    same(
        (context, target, *rest),
        "It must be the mean over hidden frames of -log softmax(cosine / 0.1) at the target.",
        "without an argument the temperature is 0.1; divide by it.",
    )
    half = "With temperature 0.5 it must divide cosines by 0.5."
    same((context, target, *rest), half, "use the argument.", temperature=0.5)
    twins, alike = codes.clone(), codes.clone()
    twins[:, 1:4], alike[:, 1:4, 0] = twins[:, :1], alike[:, :1, 0]  # the first four frames, by both codes or by one
    same(
        (context, target, twins, distractor, masked),
        "A distractor with the codes of the target is the target, and must be left out.",
        "masked_fill its logit with -inf where all codes are equal.",
    )
    same(
        (context, target, alike, distractor, masked),
        "Only a distractor of which all codes are the target's must be left out.",
        "(…).all(-1) over the codebooks.",
    )
    expect_trains(function, context, target, fixed=rest, like=distractor_contrast)
    expect_zero(function, context, target, codes, distractor, torch.zeros_like(masked))


@task(masked_cluster, difficulty=2, minutes=10)
def check_masked_cluster(function: Callable) -> None:
    """ln c of nothing, hidden frames only, or mixed with those that are seen."""
    b, s, c = 3, 14, between(6, 9)
    real = first_of(s, [14, 9, 11])
    cluster = torch.randint(c, (b, s)).masked_fill(~real, IGNORED)
    masked = (torch.rand(b, s) < 0.4) & real
    masked[:, 1], masked[:, 2] = True, False
    masked[0, 3:] = True  # more than of any other clip, so that a mean of means is another number
    same = agreement(function, masked_cluster)
    expect_tensor(function(torch.zeros(b, s, c), cluster, masked), ())
    divide = "the mean of the cross-entropy over hidden frames: divide by how many are hidden."
    expect_log(function(torch.zeros(b, s, c), cluster, masked), c, "c", divide)

    def cost(frames: Tensor) -> Tensor:
        return F.cross_entropy(logits[frames], cluster[frames])

    logits = 2 * torch.randn(b, s, c)
    while near(cost(masked), cost(real & ~masked), 0.05):  # by chance, and then the means below would be one
        logits = 2 * torch.randn(b, s, c)
    got = function(logits, cluster, masked)
    expect_not(
        got,
        cost(real),
        "Only hidden frames must count: what is seen can be copied, and nothing is learned from it.",
        "logits[masked] and cluster[masked].",
    )
    seen = "Hidden frames must count, and here it is those that are seen."
    expect_not(got, cost(real & ~masked), seen, "True in masked is hidden.")
    mean = "It must be the mean cross-entropy of hidden frames."
    same((logits, cluster, masked), mean, "each frame counts as much.")
    spread = torch.zeros_like(masked)
    spread[0, :6], spread[1, 2] = True, True
    same(
        (logits, cluster, spread),
        "All hidden frames of the batch must count as much, whichever clip they are in.",
        "one mean over all of them, not a mean of means.",
    )
    same(
        (logits, cluster, masked, 0.0),
        "With α = 0 it must be the mean of the frames that are seen; padding, of cluster -100, is none of them.",
        "α L_hidden + (1 - α) L_seen; -100 counts nowhere.",
    )
    alpha = uniform(0.3, 0.7)
    same(
        (logits, cluster, masked, alpha),
        f"With α = {alpha:.2f} it must be α times the hidden mean plus 1 - α times the seen mean.",
        "two means, each over its own frames, and then the mixture.",
    )
    expect_trains(function, logits, fixed=(cluster, masked, alpha), like=masked_cluster)
    expect_zero(function, logits, cluster, torch.zeros_like(masked))
