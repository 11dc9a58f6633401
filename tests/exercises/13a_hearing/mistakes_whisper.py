"""Wrong answers to the tasks about Whisper, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import then
from torchaudio.functional import melscale_fbanks


def _bands(mels, norm="slaney", scale="slaney"):
    return melscale_fbanks(201, 0.0, 8000.0, mels, 16_000, norm=norm, mel_scale=scale)


def _log_mel(
    waveform,
    mels=80,
    frames=None,
    *,
    bands=_bands,
    window=torch.hann_window,
    pad=lambda x: F.pad(x[:, None], (200, 200), mode="reflect")[:, 0],
    keep=lambda x: x[:, :-1],
    power=lambda x: x.abs().square(),
    log=lambda x: x.clamp(min=1e-10).log10(),
    loudest=lambda x: x.amax((1, 2), keepdim=True),
    below=8,
    scaled=lambda x: (x + 4) / 4,
):
    """Window by window, or with a single step that differs."""
    windows = pad(waveform).unfold(1, 400, 160) * window(400)  # (b, s + 1, 400)
    spectrum = power(torch.fft.rfft(keep(windows)))  # (b, s, 201)
    band = log((spectrum @ bands(mels)).mT)
    return scaled(band.maximum(loudest(band) - below))


def _time_by_time(
    written,
    words,
    times,
    first_within=50,
    *,
    start=lambda t, within: t <= within,
    at_start=(False, False),
    later=lambda t, last: t > last,
    next=lambda t, last: t >= last,
    between=False,
    words_behind=False,
    breaks_off=(True, True, True),
    last_of=lambda said: said[-1],
):
    """By counting times: a phrase is open where their number is odd."""
    said = [token - words - 1 for token in written.tolist() if token > words]
    t, time = torch.arange(times), len(written) > 0 and int(written[-1]) > words
    if not said:
        word, end, clock = *at_start, start(t, first_within)
    elif len(said) % 2 == 0 and time:
        word, end, clock = words_behind, breaks_off[2], next(t, last_of(said))
    elif time:
        word, end, clock = True, breaks_off[0], (t > said[-1]) & between
    else:
        word, end, clock = True, breaks_off[1], later(t, last_of(said))
    return torch.cat([torch.full((words,), word), torch.tensor([end]), clock])


def _last_token_only(written, words, times, first_within=50):
    """Looks for the last time in the last token, and finds none behind a word."""
    right = _time_by_time(written, words, times, first_within)
    if len(written) and int(written[-1]) < words:
        right[words + 1 :] = True
    return right


def _every_time_begins(written, words, times, first_within=50):
    right = _time_by_time(written, words, times, first_within)
    if len(written) and int(written[-1]) > words:
        right[:words], right[words + 1 :] = True, False
    return right


RIGHT = {"whisper_log_mel": _log_mel, "may_follow": _time_by_time}

MISTAKES = {
    "whisper_log_mel": {
        "Silence must be": {
            "ln": partial(_log_mel, log=lambda x: x.clamp(min=1e-10).log()),
            "a higher floor": partial(_log_mel, log=lambda x: x.clamp(min=1e-6).log10()),
            "decibels": partial(_log_mel, log=lambda x: 10 * x.clamp(min=1e-10).log10(), below=80),
            "not scaled": partial(_log_mel, scaled=lambda x: x),
            "divided before 4 is added": partial(_log_mel, scaled=lambda x: x / 4 + 4),
        },
        "must have shape": {
            "a frame too many": partial(_log_mel, keep=lambda x: x),
            "frames before bands": then(_log_mel, lambda y: y.mT),
            "as many bands as frequencies": partial(_log_mel, bands=lambda mels: torch.eye(201)),
        },
        "Twice the amplitude must add": {
            "amplitude": partial(_log_mel, power=torch.abs),
            "the real part": partial(_log_mel, power=lambda x: x.real.abs()),
        },
        "What is more than 80 dB below": {
            "all is kept": partial(_log_mel, below=100),
            "the loudest 40 dB": partial(_log_mel, below=4),
        },
        "The loudest must be that of the clip itself": {"of the batch": partial(_log_mel, loudest=lambda x: x.max())},
        "Window s must be centred": {
            "begins there": partial(_log_mel, pad=lambda x: F.pad(x, (0, 400))),
            "the first left out": partial(_log_mel, keep=lambda x: x[:, 1:]),
        },
        "Windows must be Hann's": {
            "no window": partial(_log_mel, window=torch.ones),
            "Hamming's": partial(_log_mel, window=torch.hamming_window),
            "bands of HTK": partial(_log_mel, bands=partial(_bands, scale="htk")),
            "bands of height 1": partial(_log_mel, bands=partial(_bands, norm=None)),
        },
        "must be mirrored": {"silence at the ends": partial(_log_mel, pad=lambda x: F.pad(x, (200, 200)))},
        "With 128 bands": {"always 80": lambda waveform, mels=80: _log_mel(waveform)},
    },
    "may_follow": {
        "must begin with a time": {
            "words at once": partial(_time_by_time, at_start=(True, False)),
            "an empty text": partial(_time_by_time, at_start=(False, True)),
        },
        "The first time must be one of": {
            "any time": partial(_time_by_time, start=lambda t, within: t >= 0),
            "one too few": partial(_time_by_time, start=lambda t, within: t < within),
            "one too many": partial(_time_by_time, start=lambda t, within: t <= within + 1),
        },
        "no time may stand: it has no words yet": {"an empty phrase": partial(_time_by_time, between=True)},
        "must end later": {
            "at the same time": partial(_time_by_time, later=lambda t, last: t >= last),
            "at any time": partial(_time_by_time, later=lambda t, last: t >= 0),
            "the time in the last token": _last_token_only,
        },
        "Behind the end of a phrase no word may stand": {
            "words go on": partial(_time_by_time, words_behind=True),
            "every time begins a phrase": _every_time_begins,
        },
        "the next must begin there or later": {
            "later only": partial(_time_by_time, next=lambda t, last: t > last),
            "back in time": partial(_time_by_time, next=lambda t, last: t >= 0),
            "after the first time": partial(
                _time_by_time, next=lambda t, last: t >= last, last_of=lambda said: said[0]
            ),
        },
        "a phrase may break off": {
            "no end behind a beginning": partial(_time_by_time, breaks_off=(False, True, True)),
            "no end behind a word": partial(_time_by_time, breaks_off=(True, False, True)),
            "no end behind a phrase": partial(_time_by_time, breaks_off=(True, True, False)),
        },
        "It must be boolean": {"numbers": then(_time_by_time, torch.Tensor.float)},
    },
}
