"""From a waveform to words: what each function must do, told one property at a time."""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from mmlearn.exercises import case, expect, expect_close, expect_number, expect_tensor, near, new_seed, task
from mmlearn.generation.ctc import collapse
from mmlearn.models.speech.encoder import frame_count, frame_mask, window
from mmlearn.models.speech.quantiser import straight_through
from mmlearn.objectives import ctc_log_likelihood, distractor_contrast, mask_spans, masked_cluster, sample_distractors
from mmlearn.objectives.masked import IGNORED


def expect_boolean(got: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Hand back ``got`` if it is a boolean tensor of this shape."""
    got = expect_tensor(got, shape)
    expect(got.dtype == torch.bool, f"It must be boolean; this is {got.dtype}.", "a comparison gives booleans.")
    return got


def between(low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``, another one every time."""
    return int(torch.randint(low, high + 1, ()))


def expect_all_chance_from_seed(draw: Callable[[int], Tensor]) -> None:
    """The same seed gives the same, another seed something else."""
    seed = new_seed()
    hint = "torch.rand(…, generator=generator), for every draw; make no generator of your own."
    expect(torch.equal(draw(seed), draw(seed)), "The same seed must give the same result: all chance is its.", hint)
    expect(not torch.equal(draw(seed), draw(seed + 1)), "Another seed must draw something else.", hint)


# Frames.


@task(melscale_fbanks, difficulty=3, minutes=20)
def check_melscale_fbanks(function: Callable) -> None:
    """As many triangles as bands, of height 1, with corners at equal distances in mel and straight sides in Hz."""
    bins, bands, rate = between(1900, 2100), between(12, 20), 16_000  # so many bins that each triangle shows its tip
    low, high = float(between(80, 200)), float(between(6500, 7500))
    got = expect_tensor(function(bins, low, high, bands, rate), (bins, bands))
    hertz = torch.linspace(0, rate / 2, bins)
    mel = torch.linspace(2595 * math.log10(1 + low / 700), 2595 * math.log10(1 + high / 700), bands + 2)
    corner = 700 * (10 ** (mel / 2595) - 1)
    step = 1.5 * rate / 2 / (bins - 1)
    expect((got >= 0).all(), "No weight may be below 0.", "clamp(min=0): beyond its corners a triangle is over.")
    peak, at = got.max(0)
    expect(
        (peak > 0.9).all() and (peak < 1.001).all(),
        f"Each triangle must reach 1 at its middle; these reach {float(peak.min()):.2g} to {float(peak.max()):.2g}.",
        "height 1, not area 1: rising (f - left) / (middle - left), falling (right - f) / (right - middle).",
    )
    middle = hertz[at]
    gaps = middle.diff()
    expect(
        gaps.max() > 1.5 * gaps.min(),
        "The middles must lie at equal distances in mel; these lie at equal distances in Hz.",
        "linspace between the two mels, and only then back to Hz.",
    )
    wrong = (middle - corner[1:-1]).abs() > step
    first = int(wrong.int().argmax())
    expect(
        not wrong.any(),
        f"The middle of band {first} must be at {float(corner[1:-1][first]):.0f} Hz; this is at "
        f"{float(middle[first]):.0f} Hz.",
        "m = 2595 log10(1 + f / 700); bands + 2 corners from f_min to f_max; bins from 0 to half the sample rate.",
    )
    left, right = corner[:-2], corner[2:]
    inside = (hertz[:, None] > left - step) & (hertz[:, None] < right + step)
    expect(
        not got[~inside].any(),
        "A triangle must be 0 beyond its neighbours' middles.",
        "it rises from the middle of the band below and falls to the middle of the band above.",
    )
    expect_close(
        got,
        melscale_fbanks(bins, low, high, bands, rate),
        "The sides must be straight in Hz.",
        "the corners go back to Hz first; distances are of frequencies, not of mels.",
        tolerance=1e-3,
    )


@task(frame_count, difficulty=2, minutes=10)
def check_frame_count(function: Callable) -> None:
    """One convolution, then several; numbers and tensors of them; never below 0."""
    samples = torch.randint(400, 3000, (6,))
    kernel, stride = between(4, 9), between(2, 4)

    def whole(samples: Tensor, kernels: Sequence[int], strides: Sequence[int]) -> Tensor:
        got = expect_tensor(function(samples, kernels, strides), samples.shape)
        expect(not got.is_floating_point(), "Frames are whole numbers.", "// and not /.")
        return got

    expect(
        torch.equal(whole(samples, [kernel], [1]), samples - kernel + 1),
        f"A kernel of {kernel} with stride 1 must give n - {kernel} + 1 frames: nothing is padded.",
        "the last window begins at sample n - kernel; the first at 0.",
    )
    samples = torch.arange(kernel, kernel + 3 * stride)
    expect(
        torch.equal(whole(samples, [kernel], [stride]), (samples - kernel) // stride + 1),
        f"A kernel of {kernel} with stride {stride} must give ⌊(n - {kernel}) / {stride}⌋ + 1 frames.",
        "divide what is left after the first window, round down, and then count that first one.",
    )
    kernels, strides = [10, 3, 3, 2], [5, 2, 3, 2]
    samples = torch.randint(600, 9000, (40,))
    expect(
        torch.equal(whole(samples, kernels, strides), frame_count(samples, kernels, strides)),
        "Of several convolutions each must read the frames of the one before it.",
        "in a loop: what comes out of one goes into the next, in their order.",
    )
    with case("A number instead of a tensor"):
        n = between(600, 9000)
        expect_number(
            function(n, kernels, strides),
            frame_count(n, kernels, strides),
            "It must work as well.",
            "no tensor needed.",
        )
    short = torch.arange(1, window(kernels, strides))
    expect(
        torch.equal(whole(short, kernels, strides), torch.zeros_like(short)),
        "A clip that is shorter than a window must have 0 frames.",
        "clamp at 0, but only in the end.",
    )
    expect_number(function(3, kernels, strides), 0, "A number of samples below a window must give 0 frames.", "max.")


@task(frame_mask, difficulty=3, minutes=15)
def check_frame_mask(function: Callable) -> None:
    """A frame is real where all samples that it sees are."""
    kernels, strides = [(10, 3, 3), (8, 4, 2), (6, 5, 4)][between(0, 2)], (5, 2, 2)
    hop, seen = math.prod(strides), window(kernels, strides)
    n = seen + hop * between(12, 16) + between(0, hop - 1)
    frames = frame_count(n, kernels, strides)

    def ask(lengths: Tensor) -> Tensor:
        return expect_boolean(function(torch.arange(n) < lengths[:, None], kernels, strides), (len(lengths), frames))

    expect(
        ask(torch.tensor([n, n])).all(),
        "Without padding every frame must be real.",
        "True is real; as many frames as frame_count says.",
    )
    last = torch.arange(1, frames)  # frame `last` sees samples up to hop · last + seen
    just = ask(hop * last + seen)
    expect(
        just[torch.arange(frames - 1), last].all(),
        "A frame of which all samples are real must be real.",
        f"the last of {seen} samples that it sees may be the last of the clip.",
    )
    before = ask(hop * last + seen - 1)
    expect(
        not before[torch.arange(frames - 1), last].any(),
        "A frame that sees even one padded sample must not be real: it would change with the padding.",
        "count the frames of each clip's own length, by frame_count, and compare with arange.",
    )
    expect(
        before[torch.arange(frames - 1), last - 1].all() and before[:, 0].all(),
        "All frames before it must be real.",
        "frames that are real come first, without a gap.",
    )
    lengths = torch.randint(seen, n + 1, (8,))
    expect(
        torch.equal(ask(lengths), frame_mask(torch.arange(n) < lengths[:, None], kernels, strides)),
        "Each clip must be counted by its own length.",
        "sum the mask along its samples.",
    )


# Without labels.


@task(mask_spans, difficulty=4, minutes=25)
def check_mask_spans(function: Callable) -> None:
    """Spans of one length, within the clip, as many as were asked for, and never everything."""

    def hide(frames: Tensor, seed: int | None = None, pad: int = 0, **settings) -> Tensor:
        real = torch.arange(int(frames.max()) + pad) < frames[:, None]
        generator = torch.Generator().manual_seed(new_seed() if seed is None else seed)
        masked = expect_boolean(function(real, generator=generator, **settings), real.shape)
        hint = "spans begin at 0 … frames - length of their own clip."
        expect(not (masked & ~real).any(), "Padding must never be hidden: it is no part of the clip.", hint)
        return masked

    length, frames = between(4, 7), torch.full((1000,), 40)
    one = hide(frames, probability=0.0, length=length)
    expect(one.any(1).all(), "At least one span of each clip must be hidden.", "clamp the number of spans at 1.")
    expect(
        (one.sum(1) == length).all() and (one.int().diff(dim=1).abs().sum(1) <= 2).all(),
        f"With one span of {length} frames just {length} frames in a row must be hidden; this hides "
        f"{int(one.sum(1).min())} to {int(one.sum(1).max())}.",
        "a start is drawn from 0 … frames - length, so that the whole span fits; it hides length frames.",
    )
    starts = one.int().argmax(1)
    expect(
        set(starts.tolist()) >= {0, 40 - length},
        f"Spans must begin anywhere where they fit, from 0 to {40 - length}; these begin at "
        f"{int(starts.min())} to {int(starts.max())}.",
        "randint leaves out its upper end; the first and the last place count too.",
    )
    count = hide(torch.full((60,), 250), probability=0.3, length=1).sum(1)
    expect(
        (count >= 74).all() and (count <= 76).all(),
        f"Of 250 frames a share of 0.3, just 75, must begin a span; here it is {int(count.min())} to "
        f"{int(count.max())}.",
        "draw that many different starts, such as the first of a shuffled order; not each frame by a coin.",
    )
    usual = hide(torch.full((60,), 1000)).float().mean().item()
    expect(
        0.45 < usual < 0.52,
        f"Without further arguments about 49 % of a long clip must be hidden; here it is {usual:.0%}.",
        "probability 0.065 is the share of frames that begin a span of 10; spans may overlap.",
    )
    mixed = torch.tensor([9, 30, 60, 200] * 10)
    hide(mixed, pad=5, probability=0.3, length=5)
    rare = hide(torch.tensor([30] * 400), pad=200, probability=0.05, length=1).sum(1).float().mean().item()
    expect(
        1.3 < rare < 1.7,
        f"Of 30 frames a share of 0.05 is 1.5, so 1 or 2 by chance; here it is {rare:.2f} in the mean.",
        "the number of frames is the clip's own, without padding; round down p · frames + a random number.",
    )
    all_of_it = hide(torch.randint(12, 60, (80,)), probability=1.0, length=10)
    visible = torch.stack([~row[: int(n)].all() for row, n in zip(all_of_it, all_of_it.sum(1) + 1)])
    expect(visible.all(), "Something of each clip must stay visible, also with probability 1.", "limit the spans.")
    short = hide(torch.tensor([5, 10, 40]), probability=0.5, length=10)
    expect(not short[:2].any(), "A clip of no more frames than a span must be left whole.", "no start fits there.")
    expect_all_chance_from_seed(lambda seed: hide(frames, seed, probability=0.1, length=length))


@task(sample_distractors, difficulty=3, minutes=20)
def check_sample_distractors(function: Callable) -> None:
    """Other hidden frames of the same clip, each as likely, never its own."""
    b, s, count = 6, 30, between(8, 12)
    masked = torch.rand(b, s) < 0.4
    masked[:, :3], masked[:, -2:] = True, False
    masked[1] = torch.arange(s) < 5

    def draw(masked: Tensor, count: int = count, seed: int | None = None) -> Tensor:
        generator = torch.Generator().manual_seed(new_seed() if seed is None else seed)
        got = expect_tensor(function(masked, count, generator=generator), (*masked.shape, count))
        expect(not got.is_floating_point(), "Places are whole numbers, to index with.", "int64.")
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
    row = draw(masked[1:2], 4000)[0, :5]  # five hidden frames, each with four others
    share = F.one_hot(row, 5).float().mean(1)
    wanted = (1 - torch.eye(5)) / 4
    expect(
        (row[0] != row[0, 0]).any(),
        "Distractors of a frame must be drawn one by one; here all are the same.",
        "one random number for each of them.",
    )
    expect(
        (share - wanted).abs().max() < 0.05,
        f"Each other hidden frame must be as likely, {1 / 4:.2f} here; the first frame draws the others with "
        f"{', '.join(f'{x:.2f}' for x in share[0, 1:])}.",
        "evenly among the others; no fixed neighbour, and nothing that is moved off its own place counts twice.",
    )
    expect(
        not torch.equal(row[0] - (row[0] > 0).long(), row[1] - (row[1] > 1).long()),
        "Each frame must draw its own distractors.",
        "a random number for each frame too, (b, s, count) of them.",
    )
    expect_all_chance_from_seed(lambda seed: draw(masked, seed=seed)[masked])


@task(straight_through, difficulty=3, minutes=15)
def check_straight_through(function: Callable) -> None:
    """One-hot going forward, the gradient of a softmax going back."""
    n, v, temperature = 40, 7, float(0.5 + torch.rand(()))
    logits, noise = torch.randn(n, v), 2 * torch.randn(n, v)
    got = expect_tensor(function(logits, noise, temperature), (n, v))
    hot = near(got.max(-1).values, 1.0) and near(got.sum(-1), 1.0)
    expect(hot, "Going forward it must be one-hot: 1 at the choice and 0 elsewhere.", "one_hot of the argmax.")
    expect(
        not torch.equal(got.argmax(-1), logits.argmax(-1)),
        "The choice must be a sample: noise is added before it.",
        "argmax of logits + noise.",
    )
    expect_close(
        got,
        F.one_hot((logits + noise).argmax(-1), v).float(),
        "The choice must be the largest of logits + noise.",
        "it is the same at any temperature.",
    )

    def gradient(function: Callable, temperature: float) -> Tensor:
        leaf = logits.clone().requires_grad_()
        chosen = function(leaf, noise, temperature)
        hint = "soft - soft.detach() is 0 and has the gradient of soft; add it to what is one-hot."
        expect(chosen.requires_grad, "A gradient must flow back to the logits, though argmax has none.", hint)
        (reached,) = torch.autograd.grad((chosen * towards).sum(), leaf, allow_unused=True)
        expect(reached is not None, "A gradient must flow back to the logits, though argmax has none.", hint)
        return expect_tensor(reached, (n, v))

    towards = torch.randn(n, v)
    reached = gradient(function, 1.0)
    expect(
        not near(reached, towards),
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
    masked = torch.arange(s) < torch.tensor([9, 6, 10])[:, None]
    distractor = sample_distractors(masked, k, generator=torch.Generator().manual_seed(new_seed()))
    context, target = torch.randn(b, s, d), torch.randn(b, s, d)
    codes = torch.arange(s).expand(b, s)[..., None].repeat(1, 1, 2)  # no two frames sound alike

    def cost(context: Tensor, target: Tensor, codes: Tensor = codes, masked: Tensor = masked, **more) -> Tensor:
        return expect_tensor(function(context, target, codes, distractor, masked, **more), ())

    swapped = distractor_contrast(target, context, codes, distractor, masked)
    expect(
        not near(cost(context, target), swapped),
        "The context of the frame must pick among the sounds of others; here it is the other way.",
        "candidates are target[distractor]; the context is that of the hidden frame.",
    )
    alike = torch.randn(b, 1, d).repeat(1, s, 1)
    expect_close(
        cost(context, alike),
        torch.tensor(1.0 + k).log(),
        f"Where all sounds are alike it must cost ln(1 + k) = ln {1 + k}.",
        "the target is one of the 1 + k candidates, and the loss the mean over hidden frames of -log softmax.",
    )
    expect(
        near(cost(3 * context, target), cost(context, target))
        and near(cost(context, 5 * target), cost(context, target)),
        "How long vectors are must not matter: similarity is the cosine.",
        "F.normalize(…, dim=-1), both.",
    )
    elsewhere = torch.where(masked[..., None], context, 9 * torch.randn(b, s, d))
    expect_close(
        cost(elsewhere, target),
        cost(context, target),
        "What the context says at frames that are not hidden must not matter.",
        "mean over the hidden frames only.",
    )
    right = distractor_contrast(context, target, codes, distractor, masked)
    expect_close(
        cost(context, target),
        right,
        "It must be the mean over hidden frames of -log softmax(cosine / 0.1) at the target.",
        "without an argument the temperature is 0.1; divide by it.",
    )
    expect_close(
        cost(context, target, temperature=0.5),
        distractor_contrast(context, target, codes, distractor, masked, 0.5),
        "With temperature 0.5 it must divide cosines by 0.5.",
        "use the argument.",
    )
    twins = codes.clone()
    twins[:, 1:4] = twins[:, :1]  # the first four frames sound alike
    half = codes.clone()
    half[:, 1:4, 0] = half[:, :1, 0]  # and here only by their first codebook
    expect_close(
        cost(context, target, twins),
        distractor_contrast(context, target, twins, distractor, masked),
        "A distractor with the codes of the target is the target, and must be left out.",
        "masked_fill its logit with -inf where all codes are equal.",
    )
    expect_close(
        cost(context, target, half),
        distractor_contrast(context, target, half, distractor, masked),
        "Only a distractor of which all codes are the target's must be left out.",
        "(…).all(-1) over the codebooks.",
    )
    none = cost(context, target, masked=torch.zeros_like(masked))
    expect_number(none, 0.0, "Where nothing is hidden it must cost 0.", "a sum divided by at least 1.")
    leaf = context.clone().requires_grad_()
    expect(cost(leaf, target).requires_grad, "A gradient must flow back to the context.", "no item(), no detach().")


@task(masked_cluster, difficulty=2, minutes=10)
def check_masked_cluster(function: Callable) -> None:
    """ln c of nothing, hidden frames only, or mixed with those that are seen."""
    b, s, c = 3, 14, between(6, 9)
    logits, cluster = 2 * torch.randn(b, s, c), torch.randint(c, (b, s))
    real = torch.arange(s) < torch.tensor([14, 9, 11])[:, None]
    cluster = cluster.masked_fill(~real, IGNORED)
    masked = (torch.rand(b, s) < 0.4) & real
    masked[:, 1], masked[:, 2] = True, False
    masked[0, 3:] = True  # more than of any other clip, so that a mean of means is another number

    def cost(logits: Tensor, cluster: Tensor = cluster, masked: Tensor = masked, *alpha: float) -> Tensor:
        return expect_tensor(function(logits, cluster, masked, *alpha), ())

    expect_close(
        cost(torch.zeros(b, s, c)),
        torch.tensor(float(c)).log(),
        f"Logits that know nothing must cost ln c = ln {c}.",
        "the mean of the cross-entropy over hidden frames: divide by how many are hidden.",
    )
    hidden, seen = (F.cross_entropy(logits[m], cluster[m]) for m in (masked, real & ~masked))
    while near(hidden, seen, 0.05):  # by chance, and then the means below would be one
        logits = 2 * torch.randn(b, s, c)
        hidden, seen = (F.cross_entropy(logits[m], cluster[m]) for m in (masked, real & ~masked))
    got = cost(logits)
    expect(
        not near(got, F.cross_entropy(logits[real], cluster[real])),
        "Only hidden frames must count: what is seen can be copied, and nothing is learned from it.",
        "logits[masked] and cluster[masked].",
    )
    expect(
        not near(got, seen),
        "Hidden frames must count, and here it is those that are seen.",
        "True in masked is hidden.",
    )
    expect_close(got, hidden, "It must be the mean cross-entropy of hidden frames.", "each frame counts as much.")
    spread = torch.zeros_like(masked)
    spread[0, :6], spread[1, 2] = True, True
    expect_close(
        cost(logits, cluster, spread),
        masked_cluster(logits, cluster, spread),
        "All hidden frames of the batch must count as much, whichever clip they are in.",
        "one mean over all of them, not a mean of means.",
    )
    expect_close(
        cost(logits, cluster, masked, 0.0),
        seen,
        "With α = 0 it must be the mean of the frames that are seen; padding, of cluster -100, is none of them.",
        "α L_hidden + (1 - α) L_seen; -100 counts nowhere.",
    )
    alpha = float(0.3 + 0.4 * torch.rand(()))
    expect_close(
        cost(logits, cluster, masked, alpha),
        alpha * hidden + (1 - alpha) * seen,
        f"With α = {alpha:.2f} it must be α times the hidden mean plus 1 - α times the seen mean.",
        "two means, each over its own frames, and then the mixture.",
    )
    none = cost(logits, cluster, torch.zeros_like(masked))
    expect_number(none, 0.0, "Where nothing is hidden it must cost 0.", "a sum divided by at least 1.")
    leaf = logits.clone().requires_grad_()
    expect(
        cost(leaf).requires_grad, "A gradient must flow back to the logits.", "stay in torch: no item() or detach()."
    )


# Words.


@task(collapse, difficulty=1, minutes=10)
def check_collapse(function: Callable) -> None:
    """Repeats are merged first, blanks removed then."""
    a, b, c = (torch.randperm(20)[:3] + 1).tolist()

    def expect_text(path: list[int], text: list[int], property: str, hint: str, *blank: int) -> None:
        got = expect_tensor(function(torch.tensor(path), *blank), finite=True)
        said = f" {path} must read {text}; this reads {got.tolist()}."
        if got.ndim == 1 and got.tolist() == text:
            return
        expect(got.ndim == 1, "It must return a text, (t,).", "one axis, of tokens.")
        expect(got.shape == (len(text),) and got.tolist() == text, property + said, hint)

    expect_tensor(function(torch.tensor([a, b, c])), (3,))
    expect_text([a, b, c, a], [a, b, c, a], "A token may come back later.", "only neighbours are merged, no set.")
    expect_text([a, a, a, b, b], [a, b], "Repeats must be merged.", "unique_consecutive.")
    expect_text([0, a, 0, b, 0], [a, b], "Blanks must be removed.", "keep what is not the blank.")
    expect_text(
        [a, a, 0, a, b],
        [a, a, b],
        "A blank between two equal tokens must keep them apart.",
        "merge first, remove blanks then.",
    )
    expect_text([0, 0, 0], [], "A path of blanks must read nothing.", "an empty tensor.")
    with case(f"With blank {a}"):
        expect_text([a, b, 0, 0, a, 0], [b, 0, 0], "0 is a token then.", "use the argument.", a)
    path = torch.randint(0, 4, (60,)).tolist()
    expect_text(path, collapse(torch.tensor(path)).tolist(), "Long paths must be read too.", "the same two steps.")


@task(ctc_log_likelihood, difficulty=5, minutes=30)
def check_ctc_log_likelihood(function: Callable) -> None:
    """All paths that read the text, and no other; in logarithms; padding and blanks where they belong."""
    v = between(4, 6)

    def speak(b: int, s: int) -> Tensor:
        return (1.5 * torch.randn(b, s, v)).log_softmax(-1)

    def ask(log_probs: Tensor, text: list[int] | Tensor, *more, finite: bool = True, **named) -> Tensor:
        tokens = torch.tensor(text).repeat(len(log_probs), 1) if isinstance(text, list) else text
        return expect_tensor(function(log_probs, tokens, *more, **named), (len(log_probs),), finite=finite)

    def compare(log_probs: Tensor, text: list[int], property: str, hint: str) -> None:
        wanted = ctc_log_likelihood(log_probs, torch.tensor(text).expand(len(log_probs), -1))
        expect_close(ask(log_probs, text), wanted, property, hint, tolerance=1e-4)

    one = speak(5, 1)
    expect_close(
        ask(one, [2]),
        one[:, 0, 2],
        "In one frame a text of one token must have that token's ln p.",
        "a logarithm: no minus, no exp, no division; the start may be the first token, not only a blank.",
    )
    two = speak(5, 2)
    ways = torch.stack([two[:, 0, i] + two[:, 1, j] for i, j in ((2, 2), (0, 2), (2, 0))])
    got = ask(two, [2])
    expect(
        not near(got, ways.amax(0), 1e-4),
        "All paths must be added; here it is the likeliest one alone.",
        "logsumexp instead of max.",
    )
    expect(
        not near(got, ways[:2].logsumexp(0), 1e-4) and not near(got, ways[2], 1e-4),
        "A text may end with its last token or with a blank after it.",
        "add the last two states in the end.",
    )
    expect_close(
        got,
        ways.logsumexp(0),
        "In two frames a text of one token has three paths: twice the token, or a blank before or after it.",
        "the states are blank, token, blank; from frame to frame one stays or goes one on.",
        tolerance=1e-4,
    )
    compare(
        speak(5, 2),
        [1, 2],
        "Between two different tokens the blank may be left out.",
        "from a token one may go two on, if the token there is another one; ln p is not divided by the length.",
    )
    double = ask(speak(5, 2), [1, 1], finite=False)
    expect(
        (double < -1e6).all(),
        "Two equal tokens need a blank between them, so that no path of two frames reads them: ln 0.",
        "no step of two between equal tokens.",
    )
    compare(speak(5, 4), [1, 1, 2], "Repeated tokens must be read with a blank between them.", "only that pair.")
    frames = speak(1, 4)
    texts = [text for t in range(5) for text in itertools.product(range(1, v), repeat=t)]
    total = torch.stack([ask(frames, list(text), finite=False)[0] for text in texts if text])
    nothing = frames[0, :, 0].sum()
    expect_close(
        torch.cat([total, nothing[None]]).logsumexp(0),
        torch.tensor(0.0),
        "The probabilities of all texts must add up to 1.",
        "each path reads just one text.",
        tolerance=1e-3,
    )
    _check_padding(ask, speak, v)


def _check_padding(ask: Callable, speak: Callable, v: int) -> None:
    with case("A long clip"):
        long, text = speak(2, 400), torch.randint(1, v, (2, 60))
        wanted = ctc_log_likelihood(long, text)
        expect_close(ask(long, text), wanted, "It must stay finite and right.", "add logarithms.", tolerance=1e-3)
    frames = torch.arange(9) < torch.tensor([9, 5, 7])[:, None]
    heard, text = speak(3, 9), torch.tensor([[1, 2, 3], [2, 1, 1], [3, 1, 2]])
    expect_close(
        ask(heard, text, frames),
        torch.cat([ctc_log_likelihood(row[None, : int(m.sum())], t[None]) for row, m, t in zip(heard, frames, text)]),
        "Frames that frame_mask leaves out must change nothing.",
        "where a frame is not real the state stays as it was.",
        tolerance=1e-4,
    )
    real = torch.arange(3) < torch.tensor([1, 3, 2])[:, None]
    wanted = torch.cat([ctc_log_likelihood(row[None], t[None, : int(m.sum())]) for row, m, t in zip(heard, real, text)])
    expect_close(
        ask(heard, text.masked_fill(~real, 0), None, real),
        wanted,
        "Tokens that token_mask leaves out must change nothing.",
        "each text ends at its own last token: gather the states 2 · length and 2 · length - 1.",
        tolerance=1e-4,
    )
    with case(f"With blank {v - 1}"):
        text = torch.tensor([[0, 2, 0]] * 3)
        wanted = ctc_log_likelihood(heard, text, blank=v - 1)
        expect_close(ask(heard, text, blank=v - 1), wanted, "0 is a token then.", "use the argument.", tolerance=1e-4)
    leaf = heard.clone().requires_grad_()
    result = ask(leaf, torch.tensor([[1, 2, 3]] * 3))
    expect(result.requires_grad, "A gradient must flow back to log_probs.", "stay in torch: no item() or detach().")
    (gradient,) = torch.autograd.grad(result.sum(), leaf)
    expect(gradient.isfinite().all(), "The gradient must be finite.", "-1e30 for ln 0: infinities give NaN.")
