"""Noise, moments, masks, decibels, dropped modalities, hidden frames: what each must do, one property at a time."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mmlearn.data.made.scene_sound import add_noise
from mmlearn.evaluation import frames_near, si_sdr
from mmlearn.exercises import case, expect, expect_close, expect_tensor, near, new_seed, task
from mmlearn.models.audiovisual.av_hubert import imposters
from mmlearn.objectives import masked_multimodal_cluster, modality_dropout, ratio_masks


def seeded(seed: int) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def tones(b: int, samples: int) -> Tensor:
    """Rows of a tone each, of which the last is ten times as loud as the first."""
    pitch = 200 + 800 * torch.rand(b, 1)
    return torch.logspace(-1.5, -0.5, b)[:, None] * torch.sin(2 * torch.pi * pitch * torch.arange(samples) / 16_000)


# Sounds.


@task(add_noise, difficulty=2, minutes=15)
def check_add_noise(function: Callable) -> None:
    """The noise's power lies below each row's own by exactly so many decibels."""
    b, samples, seed = 4, 12_000, new_seed()
    sound, snr = tones(b, samples), float(12 + 6 * torch.rand(()))

    def noise_of(snr: float | Tensor, seed: int = seed, sound: Tensor = sound) -> Tensor:
        got = expect_tensor(function(sound, snr, seeded(seed)), tuple(sound.shape))
        return (got - sound).double()

    def decibels(noise: Tensor, sound: Tensor = sound) -> Tensor:
        return 10 * torch.log10(sound.double().square().sum(-1) / noise.square().sum(-1))

    got = expect_tensor(function(sound, snr, seeded(seed)), (b, samples))
    kept = (got * sound).sum(-1) / sound.square().sum(-1)
    expect(
        near(kept - 1, 0.0, 0.35),  # where noise is loud, chance alone moves this
        "The sound itself must stay as loud as it was; this makes it louder or softer.",
        "multiply the noise by a gain, and add it; what comes in stays.",
    )
    noise = noise_of(snr)
    expect((noise != 0).any(1).all(), "Noise must be added.", "noise of the sound's shape, times a gain.")
    centre = noise.mean(1).abs() / noise.std(1)
    expect(
        (centre < 6 / samples**0.5).all(),
        "The noise must have mean 0; this noise lies to one side.",
        "randn is centred; rand is between 0 and 1.",
    )
    alike = near(noise[0] / noise[0].norm(), noise[1] / noise[1].norm())
    expect(not alike, "Each row must have a noise of its own.", "randn of (b, samples), not of one row.")
    heard = decibels(noise)
    said = f"At {snr:.2f} dB the noise must lie {snr:.2f} dB below the sound"
    expect(not near(heard + snr, 0.0, 0.5), f"{said}; here it lies above.", "the higher the SNR, the softer the noise.")
    expect(
        not near(heard.diff() - 20 / (b - 1), 0.0, 0.5),
        "Each row must have its own gain; here loud rows have a better SNR than soft ones.",
        "sum over the samples of a row, the last axis, and keep that axis to multiply.",
    )
    hint = f"SNR = 10 log10 of a ratio of powers, so the gain of amplitudes is the root; this gives {heard[0]:.2f} dB."
    expect(near(heard - snr, 0.0, 0.5), f"{said}, in powers.", hint)
    with case("Clips of 40 samples"):
        short = tones(b, 40) + 0.01
        expect(
            near(decibels(noise_of(snr, sound=short), short), snr, 1e-3),
            "The SNR must be that exactly, not on average; what is drawn is by chance louder or softer.",
            "measure the power of the noise that was drawn, and divide by it.",
        )
    with case("An SNR for each row"):
        each = torch.linspace(-10, 20, b)
        wrong = "The SNRs must be those asked for, row by row."
        hint = "a tensor of (b,) needs an axis more beside (b, samples); torch.as_tensor takes a number and a tensor."
        expect(near(decibels(noise_of(each)), each.double(), 1e-3), wrong, hint)
    again = noise_of(snr)
    expect(near(again, noise, 1e-7), "The same seed must give the same noise.", "hand the generator to torch.randn.")
    expect(not near(noise_of(snr, seed + 1), noise), "Another seed must give another noise.", "use generator.")


@task(ratio_masks, difficulty=2, minutes=10)
def check_ratio_masks(function: Callable) -> None:
    """Shares of all sources sum to 1, however loud, and where all are silent."""
    b, n, bins, frames = 2, int(torch.randint(3, 5, ())), 6, 5
    magnitude = torch.rand(b, n, bins, frames) + 0.1
    got = expect_tensor(function(magnitude), (b, n, bins, frames))
    hint = "divide by the sum over the sources, axis 1, and keep that axis: sum(1, keepdim=True)."
    expect(near(got.sum(1), 1.0), "The masks of all sources must sum to 1 in each bin.", hint)
    expect(
        not near(got, magnitude.softmax(1)),
        "Shares must be of the magnitudes; these are of their exponentials.",
        "no softmax: twice as loud is twice the share.",
    )
    power = magnitude.square() / magnitude.square().sum(1, keepdim=True)
    expect(
        not near(got, power),
        "Shares must be of magnitudes; these are of powers.",
        "do not square; that is Wiener's mask, another good one.",
    )
    loudest = (magnitude == magnitude.amax(1, keepdim=True)).float()
    expect(not near(got, loudest), "Shares must be shares; here the loudest has all.", "that is the binary mask.")
    expect_close(got, ratio_masks(magnitude), "Each mask must be its source's share of the sum.", "|S_n| / Σ_m |S_m|.")
    alone = magnitude.clone()
    alone[:, 1:] = 0
    wanted = torch.zeros_like(alone)
    wanted[:, 0] = 1
    expect_close(function(alone), wanted, "A source that sounds alone must get all, the others nothing.", "0 stays 0.")
    with case("Where all are silent"):
        silent = magnitude.clone()
        silent[0, :, 2] = 0
        got = expect_tensor(function(silent), (b, n, bins, frames))
        expect(
            near(got[0, :, 2], 1 / n),
            f"All {n} sources must get the same share, 1/{n}, so that masks sum to 1 there too.",
            "torch.where(total > 0, share, 1 / n).",
        )
    with case("Magnitudes of 1e-12"):
        expect_close(
            function(1e-12 * magnitude),
            ratio_masks(magnitude),
            "What is a million million times softer must be shared in the same way.",
            "no small number in the denominator: it is larger than such sounds; clamp, or use where.",
        )


@task(si_sdr, difficulty=3, minutes=20)
def check_si_sdr(function: Callable) -> None:
    """0 dB where right and wrong are as loud; scale and constants change nothing; numbers stay finite."""
    shape = b, n, samples = 2, 3, 400
    x = torch.randn(2, b, n, samples)
    x = x - x.mean(-1, keepdim=True)
    reference, noise = x
    noise = noise - (noise * reference).sum(-1, keepdim=True) / reference.square().sum(-1, keepdim=True) * reference
    noise = noise * (reference.norm(dim=-1) / noise.norm(dim=-1))[..., None]  # as loud, and at a right angle
    got = expect_tensor(function(reference + noise, reference), shape[:-1])
    hint = "10 log10 of what is right over what is wrong, both as powers: sums of squares."
    expect_close(got, torch.zeros(b, n), "With as much right as wrong it must be 0 dB.", hint, tolerance=1e-3)
    softer = function(reference + 0.1**0.5 * noise, reference)
    numbers = f" Expected 10, got {float(expect_tensor(softer, shape[:-1]).mean()):.4g}."
    expect(near(softer, 10.0, 1e-3), f"With a tenth of the wrong power it must be 10 dB.{numbers}", hint)
    estimate = reference + torch.linspace(0.3, 3, n)[:, None] * noise
    wanted = si_sdr(estimate, reference)
    shared = near(expect_tensor(function(estimate, reference), shape[:-1]) - wanted.mean(), 0.0, 1e-3)
    expect(
        not shared, "Each row must have a score of its own; here all have the mean.", "sum over the last axis alone."
    )
    gain = float(2 + torch.rand(()))
    for words, given in (
        ("A louder estimate", (gain * estimate, reference)),
        ("A louder reference", (estimate, gain * reference)),
    ):
        expect(
            near(function(*given), wanted, 1e-3),
            f"{words} must have the same score.",
            "scale the reference by α = ŝᵀs / ‖s‖² first, and compare with that.",
        )
    for words, given in (("estimate", (estimate + 0.7, reference)), ("reference", (estimate, reference + 0.7))):
        expect(
            near(function(*given), wanted, 1e-3),
            f"A constant added to the {words} must change nothing.",
            "take the mean off both first, over the samples of each row.",
        )
    uneven = torch.arange(b * n).view(b, n, 1).float()
    expect(
        near(function(estimate + uneven, reference), wanted, 1e-3),
        "Each row must lose its own mean; here constants that differ from row to row change the score.",
        "mean(-1, keepdim=True), not the mean of everything.",
    )
    expect_close(function(estimate, reference), wanted, "Its score must be that of the formula.", hint, tolerance=1e-3)
    with case("A perfect estimate"):
        got = expect_tensor(function(reference, reference), shape[:-1])
        expect(
            (got >= 60).all(),
            f"It must have a high score, at least 60 dB; this one is {float(got.min()):.1f}.",
            "what you add so as not to divide by 0 must be tiny beside the energy of the sound.",
        )
    with case("A silent estimate"):
        got = expect_tensor(function(torch.zeros(shape), reference), shape[:-1])
        expect((got <= -60).all(), "It must have a low score, at most -60 dB.", "0 of it is right; keep log10 finite.")


# When?


@task(frames_near, difficulty=1, minutes=10)
def check_frames_near(function: Callable) -> None:
    """The frame that a moment falls in, and as many to each side."""
    fps = float(torch.tensor([10.0, 12.5, 50.0])[torch.randint(3, ())])
    frames, n = int(torch.randint(20, 30, ())), 5
    own = 4 + torch.randperm(frames - 8)[:n]
    place = torch.tensor([0.2, 0.35, 0.5, 0.65, 0.8])  # in its frame
    time = (own + place) / fps

    def ask(time: Tensor, tolerance: int | None = None) -> Tensor:
        more = () if tolerance is None else (tolerance,)
        got = expect_tensor(function(time, frames, fps, *more), (len(time), frames))
        expect(got.dtype == torch.bool, "It must be boolean: near or not.", "a comparison gives that.")
        return got

    first, last = (
        (one.float() * torch.arange(frames)).sum(1) for one in (ask(time, 0), frames_near(time, frames, fps, 0))
    )
    alone = ask(time, 0).sum(1) == 1
    expect(
        alone.all(),
        "With tolerance 0 there must be just one frame a moment.",
        "the one that it falls in: |k - own| <= 0.",
    )
    expect(
        not ((first - last == 1).any() and ((first == last) | (first - last == 1)).all()),
        "Frame k lasts from k / fps to (k + 1) / fps; here a later frame is taken.",
        "floor, also in its second half; round goes to the next, and ceil always does.",
    )
    expect(
        torch.equal(first, last),
        "It must be the frame that the moment falls in.",
        "time is in seconds: times fps, then floor.",
    )
    got = ask(time, 2)
    for words, side in (("before", -2), ("behind", 2)):
        expect(
            got[torch.arange(n), own + side].all(),
            f"With tolerance 2 the second frame {words} must be near as well.",
            "|k - own| <= tolerance: both sides, and its end too.",
        )
    expect(
        torch.equal(got.sum(1), torch.full((n,), 5)),
        "With tolerance 2 there must be 5 frames, no more.",
        "2 to each side, in frames, not in seconds.",
    )
    expect(torch.equal(ask(time), ask(time, 1)), "Left out, the tolerance must be 1.", "keep the stub's default.")
    ends = torch.tensor([0.5, frames - 0.5]) / fps
    got = ask(ends, 1)
    expect(
        not got[0, -1] and not got[1, 0],
        "The last frame must not be near the first.",
        "time does not go round: no %, and beware of negative indices.",
    )
    expect(
        torch.equal(got.sum(1), torch.tensor([2, 2])),
        "At both ends there must be two frames within 1.",
        "nothing is before frame 0.",
    )
    late = torch.tensor([frames + 3.5, frames + 0.5]) / fps
    wanted = frames_near(late, frames, fps, 1)
    expect(
        torch.equal(ask(late, 1), wanted),
        "A moment behind the end must not be moved to the last frame.",
        "no clamp: where no frame is near, the row is False.",
    )


# What is dropped, and what is hidden.


@task(modality_dropout, difficulty=2, minutes=15)
def check_modality_dropout(function: Callable) -> None:
    """Nothing at probability 0, never both, each clip by itself, from the generator."""
    clips, seed = int(torch.randint(2800, 3200, ())), new_seed()
    real = torch.ones(clips, 3, dtype=torch.bool)

    def draw(seed: int = seed, **probability: float) -> tuple[Tensor, Tensor]:
        result = function(real, generator=seeded(seed), **probability)
        expect(
            isinstance(result, tuple) and len(result) == 2, "It must return two: audio_kept, video_kept.", "a tuple."
        )
        kept = [expect_tensor(part, (clips,)) for part in result]
        boolean = all(part.dtype == torch.bool for part in kept)
        expect(boolean, "Both must be boolean, True where the modality is kept.", "compare a random number with p.")
        return kept[0], kept[1]

    for p in (0.0, 1.0):
        heard, seen = draw(both=1.0, audio=p)
        expect(
            heard.all() and seen.all(),
            "With both = 1 nothing must be dropped: that is the identity.",
            "both is the probability to keep both; True means kept.",
        )
    both, audio = float(0.3 + 0.2 * torch.rand(())), float(0.68 + 0.04 * torch.rand(()))
    heard, seen = draw(both=both, audio=audio)
    expect((heard | seen).all(), "No clip must lose both.", "choose which one goes; do not drop each by itself.")
    constant = all(int(part.sum()) in (0, clips) for part in (heard, seen))
    expect(
        not constant,
        "Each clip must be drawn by itself; here one draw holds for the whole batch.",
        "len(real) numbers.",
    )
    heard, seen = draw(both=0.0, audio=1.0)
    expect(
        heard.all() and not seen.any(),
        "With both = 0 and audio = 1 the sound alone must stay.",
        "audio_kept comes first.",
    )
    heard, seen = draw(both=both, audio=audio)
    share = float((heard & seen).float().mean())
    expect(
        abs(share - both) < 0.05,
        f"Both must be kept in a share of {both:.2f} of clips; here in {share:.2f}.",
        "rand < both.",
    )
    share, wanted = float((heard & ~seen).float().mean()), (1 - both) * audio
    expect(
        abs(share - wanted) < 0.05,
        f"The sound alone must stay in (1 - {both:.2f}) · {audio:.2f} = {wanted:.2f} of clips; here in {share:.2f}.",
        "two numbers a clip: audio counts only for those that lose one.",
    )
    lonely = ~heard | ~seen
    pairs = float((lonely[1:] & lonely[:-1]).float().mean())
    expect(
        abs(pairs - (1 - both) ** 2) < 0.06,
        "Clips that follow each other must have nothing to do with each other.",
        "draw for each clip; do not drop in order, or the first so many.",
    )
    again = draw(both=both, audio=audio)
    same = torch.equal(again[0], heard) and torch.equal(again[1], seen)
    expect(same, "The same seed must draw the same.", "hand the generator to torch.rand.")
    other = draw(seed + 1, both=both, audio=audio)
    expect(not torch.equal(other[0], heard), "Another seed must draw others.", "use generator.")


@task(masked_multimodal_cluster, difficulty=2, minutes=15)
def check_masked_multimodal_cluster(function: Callable) -> None:
    """The mean over real frames of which at least one stream is hidden."""
    b, f, c = 3, 12, int(torch.randint(5, 9, ()))
    real = torch.arange(f) < torch.tensor([12, 9, 7])[:, None]
    cluster = torch.randint(c, (b, f))
    audio, video = torch.zeros(2, b, f, dtype=torch.bool)
    audio[:, 1:4], video[:, 3:6] = True, True
    audio[1, 4:8] = True
    audio[:, -2:] = True  # also where clips are over
    given = cluster, audio, video, real
    logits = _telling_logits(c, *given)
    got = expect_tensor(function(logits, *given), ())
    flat = function(torch.zeros(b, f, c), *given)
    expect_close(
        flat,
        torch.tensor(c).log(),
        f"Logits that know nothing must cost ln c = ln {c}.",
        "a mean over the frames that count, of the cross-entropy.",
    )
    wanted = masked_multimodal_cluster(logits, *given)

    def only(frames: Tensor) -> Tensor:
        return masked_multimodal_cluster(logits, cluster, frames, frames, torch.ones_like(real))

    told = (
        (real, "Frames that are seen and heard must not count.", "only audio_masked | video_masked."),
        (
            audio & video & real,
            "It must count frames hidden in either stream; here only those hidden in both.",
            "or, not and.",
        ),
        (audio & real, "Frames whose picture is hidden must count as well.", "audio_masked | video_masked."),
        (video & real, "Frames whose sound is hidden must count as well.", "audio_masked | video_masked."),
        ((audio ^ video) & real, "Frames hidden in both streams must count too, once.", "|, not ^."),
        (audio | video, "Frames where a clip is over must not count.", "& real."),
    )
    for frames, property, hint in told:
        expect(not near(got, only(frames)) or near(wanted, only(frames)), property, hint)
    parts = [masked_multimodal_cluster(logits[i : i + 1], *(x[i : i + 1] for x in given)) for i in range(b)]
    expect(
        not near(got, sum(parts) / b),
        "It must be the mean over all frames that count, whatever clip they are of; here it is over clips.",
        "clips with more hidden frames weigh more: one mean, not a mean of means.",
    )
    expect_close(
        got,
        wanted,
        "It must be the mean cross-entropy of the frames that count.",
        "-log softmax at the cluster's number, over the last axis.",
    )
    with case("Padding with other numbers"):
        padded = cluster.where(real, torch.tensor(-100))
        expect_close(
            function(logits, padded, *given[1:]),
            wanted,
            "What stands where clips are over must change nothing.",
            "index logits and clusters with what counts first.",
        )
    with case("Nothing hidden"):
        nothing = torch.zeros_like(audio)
        leaf = logits.clone().requires_grad_()
        loss = expect_tensor(function(leaf, cluster, nothing, nothing, real), ())
        expect_close(loss, torch.tensor(0.0), "It must be 0, not NaN.", "a sum over how many count, at least 1.")
    leaf = logits.clone().requires_grad_()
    expect(
        function(leaf, *given).requires_grad, "A gradient must flow back to the logits.", "stay in torch: no item()."
    )


def _telling_logits(c: int, cluster: Tensor, audio: Tensor, video: Tensor, real: Tensor) -> Tensor:
    """Logits of which the losses over different frames differ, so that each mistake is told for what it is."""
    frames = (audio | video) & real, real, audio & video & real, audio & real, video & real, (audio ^ video) & real
    while True:
        logits = 3 * torch.randn(*cluster.shape, c)
        each = -logits.log_softmax(-1).gather(2, cluster[..., None])[..., 0]
        means = [each[which].mean() for which in (*frames, audio | video)]
        means.append(torch.stack([row[which].mean() for row, which in zip(each, frames[0])]).mean())
        if torch.stack(means).sort().values.diff().min() > 0.005:
            return logits


@task(imposters, difficulty=5, minutes=30)
def check_imposters(function: Callable) -> None:
    """A hidden run shows another place of its clip, whole, and never itself."""
    lengths, f, rounds, seed = [20, int(torch.randint(14, 19, ())), 9], 20, 60, new_seed()
    real = torch.arange(f) < torch.tensor(lengths)[:, None]
    first, second = (int(torch.randint(low, low + 5, ())) for low in (1, 10))
    runs = [(0, first, first + 4), (0, second, second + 3), (1, 9, 14), (2, 0, 3)]
    masked = torch.zeros(3, f, dtype=torch.bool)
    for row, start, stop in runs:
        masked[row, start:stop] = True
    place = torch.arange(f).expand(3, f)

    def draw(seed: int, masked: Tensor = masked, real: Tensor = real) -> Tensor:
        got = expect_tensor(function(masked, real, generator=seeded(seed)), tuple(masked.shape))
        expect(
            not got.is_floating_point(), "It must return numbers of frames, to index with.", "whole numbers: long()."
        )
        return got

    drawn = torch.stack([draw(seed + i) for i in range(rounds)])
    expect(
        (drawn == place)[:, ~masked].all(),
        "A frame that is not hidden must show itself.",
        "start from arange, and change hidden places only.",
    )
    expect((drawn >= 0).all(), "Frames have numbers from 0 on.", "% of the clip's length brings them back.")
    inside = all((drawn[:, row, start:stop] < lengths[row]).all() for row, start, stop in runs)
    expect(
        inside,
        "Only real frames of the same clip must be shown; here some lie behind its end.",
        "% the clip's own length.",
    )
    shifts = []
    for row, start, stop in runs:
        shown = drawn[:, row, start:stop]
        steps = (shown.diff(dim=1)) % lengths[row]
        expect(
            (steps == 1).all(),
            "A run must show another run: frames that follow each other there too, also around the clip's end.",
            "one shift for a whole run, not one for each frame, and no clamp at the end.",
        )
        own = (shown >= start) & (shown < stop)
        expect(
            not own.any(),
            "Nothing of a hidden run must show itself.",
            "shift it by its length at least, and leave as much at the end.",
        )
        shifts.append((shown[:, 0] - start) % lengths[row])
    expect(
        any(len(one.unique()) > 1 for one in shifts),
        "The shift must be drawn anew by chance.",
        "a number from the length of the run to the clip's length less that.",
    )
    same = torch.equal(shifts[0], shifts[1])
    expect(not same, "Two runs of a clip must be shifted each by itself.", "one number a run, not one a clip.")
    _check_every_shift(draw)
    expect(
        torch.equal(draw(seed), draw(seed)), "The same seed must draw the same.", "hand the generator to torch.rand."
    )
    expect(
        not all(torch.equal(draw(seed), draw(seed + i)) for i in range(1, 9)),
        "Another seed must draw others.",
        "use generator.",
    )


def _check_every_shift(draw: Callable) -> None:
    """Of many clips of nine frames whose first three are hidden, which so are shifted by 3 to 6."""
    many = torch.zeros(int(torch.randint(850, 950, ())), 9, dtype=torch.bool)
    many[:, :3] = True
    drawn = draw(new_seed(), many, torch.ones_like(many))[:, 0] % 9
    share = {k: float((drawn == k).float().mean()) for k in range(3, 7)}
    said = ", ".join(f"{k}: {value:.2f}" for k, value in share.items())
    even = all(math.isclose(value, 1 / 4, abs_tol=0.09) for value in share.values())
    expect(
        even,
        f"Every shift from l to n - l must be as likely; of 3 hidden of 9 these come ({said}).",
        "n - 2 l + 1 shifts, both ends too.",
    )
