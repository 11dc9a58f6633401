"""Noise, masks that take a mixture apart, decibels, moments: what each must do, told one property at a time."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from mmlearn.data.synthetic.scene_sound import add_noise
from mmlearn.evaluation import frames_near, si_sdr
from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_boolean,
    expect_close,
    expect_not,
    expect_rows_differ,
    expect_seeded,
    expect_tensor,
    near,
    task,
)
from mmlearn.exercises.inputs import between, seeded, uniform
from mmlearn.objectives import ratio_masks


def tones(b: int, samples: int) -> Tensor:
    """Rows of a tone each, of which the last is ten times as loud as the first."""
    pitch = 200 + 800 * torch.rand(b, 1)
    return torch.logspace(-1.5, -0.5, b)[:, None] * torch.sin(2 * torch.pi * pitch * torch.arange(samples) / 16_000)


# When?


@task(
    frames_near,
    difficulty=1,
    minutes=10,
    example=by_hand(
        torch.tensor([0.05, 0.13]),
        5,
        25,
        gives=torch.tensor([[True, True, True, False, False], [False, False, True, True, True]]),
    ),
)
def check_frames_near(function: Callable) -> None:
    """The frame that a moment falls in, and as many to each side."""
    fps, frames, n = (10.0, 12.5, 50.0)[between(0, 2)], between(20, 29), 5
    own = 4 + torch.randperm(frames - 8)[:n]
    time = (own + torch.tensor([0.2, 0.35, 0.5, 0.65, 0.8])) / fps  # early and late in its frame

    def ask(time: Tensor, *tolerance: int) -> Tensor:
        return expect_boolean(function(time, frames, fps, *tolerance), (len(time), frames))

    got = ask(time, 0)
    one = "With tolerance 0 there must be just one frame a moment."
    expect((got.sum(1) == 1).all(), one, "the one that it falls in: |k - own| <= 0.")
    late = got.int().argmax(1) - own
    expect(
        not ((late == 1).any() and ((late == 0) | (late == 1)).all()),
        "Frame k lasts from k / fps to (k + 1) / fps; here a later frame is taken.",
        "floor, also in its second half; round goes to the next, and ceil always does.",
    )
    inside = "It must be the frame that the moment falls in."
    expect((late == 0).all(), inside, "time is in seconds: times fps, then floor.")
    got = ask(time, 2)
    for words, side in (("before", -2), ("behind", 2)):
        expect(
            got[torch.arange(n), own + side].all(),
            f"With tolerance 2 the second frame {words} must be near as well.",
            "|k - own| <= tolerance: both sides, and its end too.",
        )
    five = "With tolerance 2 there must be 5 frames, no more."
    expect((got.sum(1) == 5).all(), five, "2 to each side, in frames, not in seconds.")
    expect(torch.equal(ask(time), ask(time, 1)), "Left out, the tolerance must be 1.", "keep the stub's default.")
    got = ask(torch.tensor([0.5, frames - 0.5]) / fps, 1)
    expect(
        not got[0, -1] and not got[1, 0],
        "The last frame must not be near the first.",
        "time does not go round: no %, and beware of negative indices.",
    )
    expect((got.sum(1) == 2).all(), "At both ends there must be two frames within 1.", "nothing is before frame 0.")
    with case("Moments at which a frame just begins"):
        begins = expect_boolean(function(torch.tensor([0.0, 0.25, 1.0]), 9, 8.0, 0), (3, 9))
        exact = begins.nonzero()[:, 1].tolist() == [0, 2, 8]
        expect(exact, "Such a moment must fall in the frame that begins.", "floor(time · fps), nothing before it.")
    with case("With one moment, and 12.5 frames a second"):
        one = expect_boolean(function(torch.tensor([1.9]), 30, 12.5, 5), (1, 30))
        wide = one[0].nonzero()[:, 0].tolist() == [*range(18, 29)]
        expect(wide, "Frame 23 and five to each side must be near.", "fps may be no whole number, tolerance any.")
    with case("Of a long video"):
        many = function(torch.tensor([12.0, 21.05]), 600, 25.0, 0)
        expect(many.nonzero()[:, 1].tolist() == [300, 526], "Each frame must have its number.", "int64, not bytes.")
    late = torch.tensor([frames + 3.5, frames + 0.5]) / fps
    expect(
        torch.equal(ask(late, 1), frames_near(late, frames, fps, 1)),
        "A moment behind the end must not be moved to the last frame.",
        "no clamp: where no frame is near, the row is False.",
    )


# Sounds.


WAVE = torch.tensor([[1.0, -1.0, 1.0, -1.0]])


def _four_hundredths(got: Tensor) -> bool:
    return near((got - WAVE).square().sum(), 0.04, 1e-4)


@task(
    add_noise,
    difficulty=2,
    minutes=15,
    example=by_hand(WAVE, 20.0, seeded, gives=_four_hundredths, says="noise of power 4 / 100 beside [1, -1, 1, -1]"),
)
def check_add_noise(function: Callable) -> None:
    """The noise's power lies below each row's own by exactly so many decibels."""
    b, samples = 4, 12_000
    sound, snr = tones(b, samples), uniform(12, 18)

    def noise_of(snr: float | Tensor, sound: Tensor = sound, seed: Generator | None = None) -> Tensor:
        got = expect_tensor(function(sound, snr, seeded(seed)), tuple(sound.shape))
        return (got - sound).double()

    noise = noise_of(snr)
    moved = (noise * sound).sum(-1) / sound.double().square().sum(-1)
    expect(
        near(moved, 0.0, 0.35),  # where noise is loud, chance alone moves this
        "The sound itself must stay as loud as it was; this makes it louder or softer.",
        "multiply the noise by a gain, and add it; what comes in stays.",
    )
    expect((noise != 0).any(1).all(), "Noise must be added.", "noise of the sound's shape, times a gain.")
    centre = noise.mean(1).abs() / noise.std(1)
    expect(
        (centre < 6 / samples**0.5).all(),
        "The noise must have mean 0; this noise lies to one side.",
        "randn is centred; rand is between 0 and 1.",
    )
    each = noise / noise.norm(dim=1, keepdim=True)
    alike = (each @ each.T - torch.eye(b)).abs().max() > 0.5
    expect(not alike, "Each row must have a noise of its own.", "randn of (b, samples), not of one row.")
    expect_rows_differ(lambda seed: noise_of(snr, sound[:1].expand(b, samples), seed))
    _check_decibels(noise_of, sound, noise, snr)
    expect_seeded(lambda seed: noise_of(snr, seed=seed))


def _check_decibels(noise_of: Callable, sound: Tensor, noise: Tensor, snr: float) -> None:
    def decibels(noise: Tensor, sound: Tensor) -> Tensor:
        return 10 * torch.log10(sound.double().square().sum(-1) / noise.square().sum(-1))

    b, heard = len(sound), decibels(noise, sound)
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
            near(decibels(noise_of(snr, short), short), snr, 1e-3),
            "The SNR must be that exactly, not on average; what is drawn is by chance louder or softer.",
            "measure the power of the noise that was drawn, and divide by it.",
        )
    with case("Sounds of a ten-thousandth"):
        soft = 1e-4 * sound
        hint = "what is added so as not to divide by 0 must be smaller than any power; rows are never silent."
        expect(near(decibels(noise_of(snr, soft), soft), snr, 1e-3), f"{said}, exactly.", hint)
    with case("An SNR for each row"):
        each = torch.linspace(-10, 20, b)
        wrong = "The SNRs must be those asked for, row by row."
        hint = "a tensor of (b,) needs an axis more beside (b, samples); torch.as_tensor takes a number and a tensor."
        expect(near(decibels(noise_of(each), sound), each.double(), 1e-3), wrong, hint)


@task(
    ratio_masks,
    difficulty=2,
    minutes=10,
    example=by_hand(
        torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 0.0]]).view(1, 3, 2, 1),
        gives=torch.tensor([[0.75, 1 / 3], [0.25, 1 / 3], [0.0, 1 / 3]]).view(1, 3, 2, 1),
    ),
)
def check_ratio_masks(function: Callable) -> None:
    """Shares of all sources sum to 1, however loud, and where all are silent."""
    b, n, bins, frames = 2, between(3, 4), 6, 5
    magnitude = torch.rand(b, n, bins, frames) + 0.1
    got = expect_tensor(function(magnitude), (b, n, bins, frames))
    same = agreement(function, ratio_masks)
    hint = "divide by the sum over the sources, axis 1, and keep that axis: sum(1, keepdim=True)."
    expect(near(got.sum(1), 1.0), "The masks of all sources must sum to 1 in each bin.", hint)
    exponentials = "Shares must be of the magnitudes; these are of their exponentials."
    expect_not(got, magnitude.softmax(1), exponentials, "no softmax: twice as loud is twice the share.")
    powers = "Shares must be of magnitudes; these are of powers."
    expect_not(got, ratio_masks(magnitude**2), powers, "do not square; that is Wiener's mask, another good one.")
    loudest = (magnitude == magnitude.amax(1, keepdim=True)).float()
    expect_not(got, loudest, "Shares must be shares; here the loudest has all.", "that is the binary mask.")
    same((magnitude,), "Each mask must be its source's share of the sum.", "|S_n| / Σ_m |S_m|.")
    alone = magnitude.clone()
    alone[:, 1:] = 0
    same((alone,), "A source that sounds alone must get all, the others nothing.", "0 stays 0.")
    with case("Where all are silent"):
        silent = magnitude.clone()
        silent[0, :, 2] = 0
        expect(
            near(expect_tensor(function(silent), (b, n, bins, frames))[0, :, 2], 1 / n),
            f"All {n} sources must get the same share, 1/{n}, so that masks sum to 1 there too.",
            "torch.where(total > 0, share, 1 / n).",
        )
    with case("Magnitudes of 1e-12"):
        same(
            (1e-12 * magnitude,),
            "What is a million million times softer must be shared in the same way.",
            "no small number in the denominator: it is larger than such sounds; clamp, or use where.",
        )


@task(
    si_sdr,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([[2.0, -1.0, 0.0, -1.0], [7.0, 4.0, 5.0, 4.0]]),
        WAVE.expand(2, 4),
        gives=(torch.tensor([3.01, 3.01])),
    ),
)
def check_si_sdr(function: Callable) -> None:
    """0 dB where right and wrong are as loud; scale and constants change nothing; numbers stay finite."""
    b, n, samples = 2, 3, 400
    x = torch.randn(2, b, n, samples)
    reference, noise = x - x.mean(-1, keepdim=True)
    noise = noise - (noise * reference).sum(-1, keepdim=True) / reference.square().sum(-1, keepdim=True) * reference
    noise = noise * (reference.norm(dim=-1) / noise.norm(dim=-1))[..., None]  # as loud, and at a right angle

    def score(estimate: Tensor, reference: Tensor) -> Tensor:
        return expect_tensor(function(estimate, reference), (b, n))

    powers = "10 log10 of what is right over what is wrong, both as powers: sums of squares."
    even, property = score(reference + noise, reference), "With as much right as wrong it must be 0 dB."
    expect_close(even, torch.zeros(b, n), property, powers, tolerance=1e-3)
    softer = score(reference + 0.1**0.5 * noise, reference)
    numbers = f" Expected 10, got {float(softer.mean()):.4g}."
    expect(near(softer, 10.0, 1e-3), f"With a tenth of the wrong power it must be 10 dB.{numbers}", powers)
    estimate = reference + torch.linspace(0.3, 3, n)[:, None] * noise
    wanted = si_sdr(estimate, reference)
    shared = "Each row must have a score of its own; here all have the mean."
    expect_not(score(estimate, reference), wanted.mean(), shared, "sum over the last axis alone.", tolerance=1e-3)
    gain, uneven = uniform(2, 3), torch.arange(b * n).view(b, n, 1).float()
    scaled = "scale the reference by α = ŝᵀs / ‖s‖² first, and compare with that."
    centred = "take the mean off both first, over the samples of each row."
    for given, property, hint in (
        ((gain * estimate, reference), "A louder estimate must have the same score.", scaled),
        ((estimate, gain * reference), "A louder reference must have the same score.", scaled),
        ((1000 * estimate, reference), "An estimate a thousand times as loud must have the same score.", scaled),
        ((-estimate, reference), "An estimate that is turned over must have the same score.", "α may be negative."),
        ((estimate + 0.7, reference), "A constant added to the estimate must change nothing.", centred),
        ((estimate, reference + 0.7), "A constant added to the reference must change nothing.", centred),
    ):
        expect(near(score(*given), wanted, 1e-3), property, hint)
    expect(
        near(score(estimate + uneven, reference), wanted, 1e-3),
        "Each row must lose its own mean; here constants that differ from row to row change the score.",
        "mean(-1, keepdim=True), not the mean of everything.",
    )
    expect_close(
        function(estimate, reference), wanted, "Its score must be that of the formula.", powers, tolerance=1e-3
    )
    for words, given, shape in (
        ("no axis", (estimate[0, 0], reference[0, 0]), ()),
        ("three axes", (estimate[None], reference[None]), (1, b, n)),
    ):
        with case(f"With {words} before the samples"):
            score_of = expect_tensor(function(*given), shape)
            same = near(score_of, si_sdr(*given), 1e-3)
            expect(same, "It must be the same score.", "sum over the last axis, dim=-1.")
    with case("A perfect estimate"):
        got = score(reference, reference)
        expect(
            (got >= 60).all(),
            f"It must have a high score, at least 60 dB; this one is {float(got.min()):.1f}.",
            "what you add so as not to divide by 0 must be tiny beside the energy of the sound.",
        )
    with case("A silent estimate"):
        got = score(torch.zeros(b, n, samples), reference)
        expect((got <= -60).all(), "It must have a low score, at most -60 dB.", "0 of it is right; keep log10 finite.")
    with case("Sounds of a ten-thousandth"):
        soft = "What is added to keep numbers finite must be small beside the energy of the sound, whatever that is."
        expect(near(score(1e-4 * estimate, 1e-4 * reference), wanted, 1e-2), "Scores must be those of loud ones.", soft)
        got = score(1e-4 * reference, 1e-4 * reference)
        expect((got >= 60).all(), "A perfect estimate must have at least 60 dB.", soft)
