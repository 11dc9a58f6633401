"""What Whisper hears, and when it says that something was said: what each function must do, one property at a time."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mmlearn.data.mel import whisper_log_mel
from mmlearn.exercises import by_hand, case, expect, expect_boolean, expect_close, expect_tensor, task
from mmlearn.exercises.inputs import between, uniform
from mmlearn.generation.constrained import timestamped

HOP = 160  # samples from frame to frame


@task(
    whisper_log_mel, difficulty=4, minutes=25, example=by_hand(torch.zeros(1, 480), gives=torch.full((1, 80, 3), -1.5))
)
def check_whisper_log_mel(function: Callable) -> None:
    """Power in 80 bands every 10 ms, in log10, the loudest 80 dB of each clip, scaled."""
    frames = between(24, 40)
    samples = HOP * frames + between(0, HOP - 1)

    def ask(waveform: Tensor, *mels: int) -> Tensor:
        return expect_tensor(function(waveform, *mels), (len(waveform), *(mels or (80,)), frames))

    expect_close(
        ask(torch.zeros(2, samples)),
        torch.full((2, 80, frames), -1.5),
        "Silence must be (log10(1e-10) + 4) / 4 = -1.5.",
        "the least power is 1e-10, set before the logarithm, which is log10 and not ln; then add 4 and divide by 4.",
    )
    noise = uniform(0.05, 0.1) * torch.randn(3, samples)
    expect_close(
        ask(2 * noise) - ask(noise),
        torch.full((3, 80, frames), math.log10(4) / 4),
        "Twice the amplitude must add log10(4) / 4 everywhere.",
        "bands sum up the power of the spectrum, abs().square().",
        tolerance=1e-3,
    )
    _check_loudness(ask, noise)
    click, k = torch.zeros(1, samples), between(8, frames - 8)
    click[:, HOP * k] = 1
    before, behind = ask(click).mean((0, 1))[[k - 1, k + 1]]
    expect_close(
        before,
        behind,
        f"Window s must be centred on sample 160 s: a click at {HOP * k} is as loud in frame {k - 1} as in {k + 1}.",
        "torch.stft with center=True; the frame too many is the last one.",
        tolerance=1e-3,
    )
    _check_bands(ask, noise)


def _check_loudness(ask: Callable, noise: Tensor) -> None:
    fading = noise[:1] * torch.where(torch.arange(noise.shape[1]) < 1600, 1.0, 1e-7)
    got = ask(fading)
    expect_close(
        got.amin((1, 2)),
        got.amax((1, 2)) - 2,
        "What is more than 80 dB below the loudest must be set there: the least is the largest less 8 / 4.",
        "maximum(log, loudest - 8), in log10, before 4 is added.",
        tolerance=1e-3,
    )
    quiet = torch.cat([noise[:1], 1e-6 * noise[1:2]])
    expect_close(
        ask(quiet)[1:],
        ask(quiet[1:]),
        "The loudest must be that of the clip itself: a quiet clip changes beside a loud one.",
        "amax over bands and frames, (1, 2), with keepdim.",
        tolerance=1e-3,
    )


def _check_bands(ask: Callable, noise: Tensor) -> None:
    got, wanted, inside = ask(noise), whisper_log_mel(noise), slice(3, -3)
    expect_close(
        got[:, :, inside],
        wanted[:, :, inside],
        "Windows must be Hann's, of 400 samples, and the bands Slaney's.",
        "hann_window(400); slaney_bands(mels) is (201, mels), and no other scale or height will do.",
        tolerance=1e-3,
    )
    expect_close(
        got,
        wanted,
        "Before and behind the clip its samples must be mirrored.",
        "pad_mode='reflect', which is what torch.stft does by itself.",
        tolerance=1e-3,
    )
    with case("With 128 bands, as of large-v3"):
        expect_close(ask(noise, 128), whisper_log_mel(noise, 128), "It must work too.", "use mels.", tolerance=1e-3)


def may_follow(written: Int[Tensor, "t"], words: int, times: int, first_within: int = 50) -> Bool[Tensor, "v"]:
    """Which tokens may come next. Tokens are ``words`` words, then the end token, then ``times`` times."""
    grammar = timestamped(range(words), range(words + 1, words + 1 + times), words, first_within)
    allowed = torch.zeros(words + 1 + times, dtype=torch.bool)
    allowed[list(grammar(tuple(written.tolist())))] = True
    return allowed


@task(
    may_follow,
    difficulty=3,
    minutes=20,
    example=by_hand(torch.tensor([4, 0]), 3, 4, gives=torch.tensor([1, 1, 1, 1, 0, 1, 1, 1]) > 0),
)
def check_may_follow(function: Callable) -> None:
    """A time, words, a time; then the next phrase, or the end; and never back in time."""
    words, times, most = between(4, 8), between(9, 14), between(2, 4)
    end, first = words, words + 1  # the end token, and the time 0

    def ask(*written: int) -> Tensor:
        tokens = torch.tensor(written, dtype=torch.long)
        return expect_boolean(function(tokens, words, times, most), (words + 1 + times,))

    got = ask()
    expect(
        not got[:first].any(), "A text must begin with a time: neither words nor the end.", "nothing is written yet."
    )
    expect(
        got[first : first + most + 1].all() and not got[first + most + 1 :].any(),
        f"The first time must be one of the numbers 0 to {most}: first_within counts, itself included.",
        "times begin behind the end token, at words + 1.",
    )
    k, word, other = between(1, 3), between(0, words - 1), between(0, words - 1)
    j = k + between(2, 4)
    begun, spoken, ended = ask(first + k), ask(first + k, word, other), ask(first + k, word, first + j)
    expect(
        begun[:words].all() and spoken[:words].all(),
        "Behind the beginning of a phrase, and behind a word, every word may stand.",
        "only behind the end of a phrase, and at the very beginning, there are no words.",
    )
    expect(
        not begun[first:].any(),
        "Behind the beginning of a phrase no time may stand: it has no words yet.",
        "a time at the very beginning, or behind another time, begins a phrase.",
    )
    expect(
        not spoken[first : first + k + 1].any() and spoken[first + k + 1 :].all(),
        f"A phrase that begins at time {k} must end later: at {k + 1} or behind.",
        "the last time that was written may be several tokens back; look for it.",
    )
    expect(
        not ended[:words].any(), "Behind the end of a phrase no word may stand.", "the next phrase has its time first."
    )
    expect(
        not ended[first : first + j].any() and ended[first + j :].all(),
        f"Behind a phrase that ends at time {j} the next must begin there or later.",
        "at the same time is right here, and earlier is not.",
    )
    expect(
        begun[end] and spoken[end] and ended[end],
        "The end token may stand everywhere but at the very beginning: a phrase may break off.",
        "index words is the end token.",
    )
    again = ask(first + k, word, first + j, first + j)
    expect(
        again[:first].all() and not again[first:].any(),
        "A time behind the end of a phrase begins the next: words follow, and no third time.",
        "a time ends a phrase if a word stands before it, and begins one otherwise.",
    )
    _check_walks(ask, words, times, most)


def _check_walks(ask: Callable, words: int, times: int, most: int) -> None:
    for _ in range(3):
        written: list[int] = []
        while len(written) < 12:
            wanted = may_follow(torch.tensor(written, dtype=torch.long), words, times, most)
            same = torch.equal(ask(*written), wanted)
            expect(same, f"After {written}, with {words} words, other tokens may follow.", "no time is before another.")
            wanted[words] = False  # go on
            if not wanted.any():
                break
            written.append(int(wanted.nonzero()[:, 0][int(torch.randint(int(wanted.sum()), ()))]))
