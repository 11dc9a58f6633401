"""``scenes-sound``: scenes whose two named objects sound, with the waveform of each, and noise at a stated SNR.

Shape is pitch, colour is timbre, size is loudness; texture makes no sound. So a sound can tell more about some words of
a caption than about others, and a combination of colour and shape that no training picture shows does not sound in
training either. The objects sound one after another, as words do, or together; the times are known exactly.

The signal-to-noise ratio (SNR) is in decibels. Sound i of a split is a function of (split, i, seed, seconds, in_turn).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.data.batches import fetch
from mmlearn.data.hashing import stream, uniform
from mmlearn.data.mel import LogMel
from mmlearn.data.readers.sound import RATE
from mmlearn.data.synthetic.layouts import COLOURS, SHAPES, scene_layout
from mmlearn.data.synthetic.scenes import Link, Scenes, SceneSample, draw_samples
from mmlearn.suggestions import suggest

# Steps of the Bohlen–Pierce scale: no two are an octave apart. In whole Hz, so that a tone repeats after a second.
PITCHES = {shape: round(250 * 3 ** (k / 13)) for k, shape in enumerate(SHAPES)}
HARMONICS = 7
# Which two harmonics are as loud as the fundamental.
TIMBRES = dict(zip(COLOURS, combinations(range(2, HARMONICS + 1), 2)))
QUIET = 0.1  # the other harmonics
LOUDNESS = {"small": 0.125, "large": 0.25}  # times a tone of mean square 1/2; two large ones stay within [-1, 1]
FADE = RATE // 100
WORDS = ("-", *COLOURS, *SHAPES)  # of what sounds; 0 is the blank
LOOKED_THROUGH, PART = 20_000, 2048  # scenes at once, to find instruments, and to make spectra


@lru_cache(maxsize=1)
def timbres() -> Float[np.ndarray, "colours harmonics"]:
    """How loud each harmonic of a colour is; the squares of a colour's add up to 1."""
    weights = np.full((len(TIMBRES), HARMONICS), QUIET)
    for row, loud in zip(weights, TIMBRES.values()):
        row[[0, *(number - 1 for number in loud)]] = 1
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


@lru_cache(maxsize=1)
def tones() -> Float[np.ndarray, "shapes colours samples"]:
    r"""Two seconds of each tone, of which the second repeats the first.

    .. math:: x(t) = \sum_{h=1}^{7} w_h \sin(2 \pi h f t)

    with the pitch f of the shape and the weights w of the colour. The mean square is 1/2.
    """
    turns = np.outer(list(PITCHES.values()), np.arange(1, HARMONICS + 1))[..., None] * np.arange(RATE)
    waves = np.sin(2 * np.pi / RATE * (turns % RATE))  # (shapes, harmonics, samples)
    second = np.einsum("ch,shn->scn", timbres(), waves, optimize=True).astype(np.float32)
    return np.concatenate([second, second], -1)


def times(
    numbers: Float[np.ndarray, "n 5"], samples: int, in_turn: bool
) -> tuple[np.ndarray, np.ndarray]:  # (n, 2) both
    """Start and stop of two sounds in a clip of so many samples, from random numbers.

    In turn each lasts 0.2 to 0.35 of the clip, with at least 0.02 before, between and behind them. Together each starts
    in the first quarter and lasts 0.5 to 0.75, so that both sound from a quarter to a half.
    """
    if in_turn:
        lasts = 0.2 + 0.15 * numbers[:, :2]
        free = 1 - 3 * 0.02 - lasts.sum(1)
        cuts = np.sort(numbers[:, 2:4], 1) * free[:, None]  # of the free time before the first, and the second
        start = cuts + 0.02 * np.array([1, 2])
        start[:, 1] += lasts[:, 0]
    else:
        start, lasts = 0.25 * numbers[:, :2], 0.5 + 0.25 * numbers[:, 2:4]
    return (start * samples).astype(int), ((start + lasts) * samples).astype(int)


def sound_of(looks: np.ndarray, start: int, stop: int, phase: int, samples: int) -> Float[np.ndarray, "samples"]:
    """The tone of one object, float32, by the numbers of its shape, colour and size.

    It sounds from sample ``start`` to ``stop``, from sample ``phase`` of its tone. It begins and ends with 10 ms of a
    raised cosine and is exactly 0 outside its time.
    """
    shape, colour, size = looks
    sound, tone, loudness = np.zeros(samples, np.float32), tones()[shape, colour], [*LOUDNESS.values()][size]
    part = sound[start:stop]
    for first in range(0, len(part), RATE):
        piece = part[first : first + RATE]
        np.multiply(tone[phase:][: len(piece)], np.float32(loudness), out=piece)
    rise = (0.5 - 0.5 * np.cos(np.pi * (np.arange(FADE) + 0.5) / FADE)).astype(np.float32)
    part[:FADE] *= rise
    part[-FADE:] *= rise[::-1]
    return sound


@dataclass(frozen=True)
class Span(Link):
    """A link whose object sounds from ``onset`` to ``offset``, in seconds."""

    onset: float
    offset: float


@dataclass(frozen=True, repr=False)
class SoundSceneSample(SceneSample):
    """A scene and its sound: ``sources`` (2, samples) are the caption's two objects, in its order, at 16 kHz."""

    sources: Float[Tensor, "2 samples"]
    times: tuple[tuple[int, int], tuple[int, int]]  # start and stop of each source, in samples
    source: str  # what it is called in messages

    @cached_property
    def waveform(self) -> Float[Tensor, "samples"]:
        """The sum of the sources."""
        return self.sources.sum(0)

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """When each name in the caption is heard."""
        parts = zip(self.links, self.times)
        return tuple(Span(*vars(link).values(), start / RATE, stop / RATE) for link, (start, stop) in parts)


class SoundScenes(Scenes):
    """Scene i of ``split`` as ``Scenes`` draws it, with a sound of ``seconds``.

    ``in_turn``: the two objects of the caption sound one after another, in its order, and never at once; if not, both
    sound together for at least a quarter of the clip.

    Raises ``ValueError`` as ``Scenes`` does, and for less than half a second.
    """

    name, disk = "scenes-sound", "none: made on the fly"
    shows = "the same scenes; the two named objects sound, by turns or at once, each known by itself and in time"

    def __init__(self, split: str = "train", *, seconds: float = 2.0, in_turn: bool = True, **options: Any):
        super().__init__(split, **options)
        if not 0.5 <= seconds <= 60:
            raise ValueError(f"A scene sounds for 0.5 to 60 seconds, got {seconds}.")
        self.seconds, self.in_turn = seconds, in_turn

    def _make(self, index: np.ndarray) -> list[SoundSceneSample]:
        samples, layout = round(self.seconds * RATE), self.layout(index)
        numbers = uniform(stream("scene-sound", self.split, self.seed), index, 7).astype(float)
        start, stop = times(numbers[:, :5], samples, self.in_turn)
        phase = (numbers[:, 5:] * RATE).astype(int).tolist()
        looks = np.stack([layout.shape, layout.colour, layout.size], -1)
        made = []
        for i, scene in enumerate(draw_samples(layout, self.size)):
            parts = zip(layout.mentioned[i], start[i].tolist(), stop[i].tolist(), phase[i])
            sources = np.stack([sound_of(looks[i, k], *when, samples) for k, *when in parts])
            heard = (*zip(start[i].tolist(), stop[i].tolist()),)
            name = f"{self.name}, {self.split}, {index[i]}"
            made.append(SoundSceneSample(scene.image, layout, i, torch.from_numpy(sources), heard, name))
        return made


def scenes_with(
    instruments: Sequence[tuple[str, str]], split: str, count: int, *, both: bool, size: int = 64, seed: int = 0
) -> tuple[list[SoundSceneSample], Int[Tensor, "n 2"]]:
    """The first ``count`` scenes in which one of two objects is an instrument, or ``both`` are, and different ones.

    An instrument is a colour and a shape. The objects sound at once, for a second. Beside the scenes, which instrument
    each object is, in the caption's order; -1 is none. Raises ``ValueError`` for an instrument that is no pair of a
    colour and a shape, and where none fits.
    """
    kind_of = torch.full((len(COLOURS), len(SHAPES)), -1)
    for i, (colour, shape) in enumerate(instruments):
        if colour not in COLOURS or shape not in SHAPES:
            raise ValueError(f"An instrument is a colour and a shape of scenes, not {colour!r} and {shape!r}.")
        kind_of[COLOURS.index(colour), SHAPES.index(shape)] = i
    picked, kinds, first = [], [], 0
    while len(picked) < count:
        index = torch.arange(first, first + LOOKED_THROUGH)
        layout = scene_layout(split, index.numpy(), seed, 2)
        colour, shape, named = (torch.from_numpy(part) for part in (layout.colour, layout.shape, layout.mentioned))
        kind = kind_of[colour.gather(1, named), shape.gather(1, named)]
        fits = (kind >= 0).all(1) & (kind[:, 0] != kind[:, 1]) if both else (kind >= 0).any(1)
        if not fits.any():
            raise ValueError(f"Of {LOOKED_THROUGH} scenes of {split} none has such instruments: {[*instruments]}.")
        picked, kinds, first = picked + index[fits].tolist(), kinds + kind[fits].tolist(), first + LOOKED_THROUGH
    data = SoundScenes(split, size=size, seed=seed, objects=2, seconds=1.0, in_turn=False)
    return fetch(data, picked[:count]), torch.tensor(kinds[:count])


def sounding_words(
    split: str, count: int, log_mel: LogMel, *, seconds: float = 0.7, seed: int = 0, snr: float | None = None
) -> tuple[list[SoundSceneSample], dict[str, Tensor]]:
    """Scenes of two objects that sound one after the other, and a batch of them all.

    ``mel`` (b, mels, s) is near mean 0 and variance 1, and all of it is real (``mel_mask``). ``tokens`` (b, 4) are the
    numbers, in :data:`WORDS`, of colour and shape of the first object and of the second. With ``snr``, babble is heard
    behind them, so many decibels below; the samples' own waveforms stay clean. Raises ``ValueError`` as
    :class:`SoundScenes` does.
    """
    samples = fetch(SoundScenes(split, objects=2, size=24, seconds=seconds, seed=seed), range(count))
    waveform = torch.stack([sample.waveform for sample in samples])
    if snr is not None:
        generator = torch.Generator().manual_seed(int(stream("sounding words", split, seed)) >> 1)
        waveform = torch.cat([add_noise(part, snr, generator, "babble") for part in waveform.split(PART)])
    mel = (torch.cat([log_mel(part)[0] for part in waveform.split(PART)]) + 7) / 4
    named = [[sample.objects[link.object] for link in sample.links] for sample in samples]
    words = [[word for thing in things for word in (thing.colour, thing.shape)] for things in named]
    tokens = torch.tensor([[WORDS.index(word) for word in row] for row in words])
    whole = torch.ones_like(mel[:, 0], dtype=torch.bool)
    return samples, {"mel": mel, "mel_mask": whole, "tokens": tokens, "mask": tokens > 0}


def times_of_words(
    samples: list[SoundSceneSample], frame: float = 0.02
) -> tuple[Float[Tensor, "b 4"], Float[Tensor, "b 4"]]:
    """When each of the four words begins and ends to sound (b, 4), in frames of so many seconds.

    The two words of an object sound together.
    """
    spans = torch.tensor([[(span.onset, span.offset) for span in sample.spans] for sample in samples])
    begin, end = (spans.repeat_interleave(2, 1) / frame).unbind(-1)
    return begin, end


def add_noise(
    waveform: Float[Tensor, "b samples"],
    snr: float | Float[Tensor, "b"],
    generator: torch.Generator,
    kind: str = "white",
    mask: Bool[Tensor, "b samples"] | None = None,
) -> Float[Tensor, "b samples"]:
    r"""Add noise of which the power is ``snr`` decibels below the sound's, over each row's real samples.

    .. math:: \mathrm{SNR} = 10 \log_{10} \frac{\sum_t x_t^2}{\sum_t n_t^2}

    ``kind`` is white (as loud at each frequency), pink (its power falls as 1/f) or babble (eight voices that change
    their tone every fifth of a second, made of the same tones as scenes). Padding stays as it is. The sum may leave
    [-1, 1].

    Raises ``ValueError`` for an unknown kind, or for a silent row, which no noise can be in proportion to.
    """
    if kind not in NOISES:
        raise ValueError(f"There is no noise {kind!r}; {suggest(kind, NOISES)}.")
    noise = NOISES[kind](*waveform.shape, generator).to(waveform.device)
    real = torch.ones_like(waveform, dtype=torch.bool) if mask is None else mask
    noise = noise.masked_fill(~real, 0)
    power, of_noise = (x.masked_fill(~real, 0).double().square().sum(-1) for x in (waveform, noise))
    if not (power > 0).all():
        row = (power > 0).int().argmin().item()
        raise ValueError(f"Row {row} of the batch is silent or not a number, so that no SNR can be set; leave it out.")
    ratio = 10 ** (torch.as_tensor(snr, device=waveform.device).double() / 10)
    gain = (power / of_noise / ratio).sqrt()
    return waveform + (gain[:, None] * noise).to(waveform.dtype)


def _white(b: int, samples: int, generator: torch.Generator) -> Float[Tensor, "b samples"]:
    return torch.randn(b, samples, generator=generator)


def _pink(b: int, samples: int, generator: torch.Generator) -> Float[Tensor, "b samples"]:
    spectrum = torch.fft.rfft(_white(b, samples, generator))
    loudness = torch.arange(spectrum.shape[-1]).clamp(min=1).rsqrt()
    loudness[0] = 0  # no constant part
    return torch.fft.irfft(spectrum * loudness, n=samples)


def _babble(b: int, samples: int, generator: torch.Generator, voices: int = 8) -> Float[Tensor, "b samples"]:
    syllable = RATE // 5
    count = samples // syllable + 2
    table = torch.from_numpy(tones()).flatten(0, 1).unfold(1, syllable, 1)  # (tones, first sample, syllable), a view
    window, sound = torch.hann_window(syllable), torch.zeros(b, samples)
    for voice in range(voices):
        which = torch.randint(len(table), (b, count), generator=generator)
        phase = torch.randint(RATE, (b, count), generator=generator)
        loudness = torch.rand(b, count, 1, generator=generator)
        late = voice * syllable // voices  # the voices do not begin their syllables at once
        sound += (table[which, phase].mul_(loudness * window)).flatten(1)[:, late : late + samples]
    return sound


NOISES: dict[str, Callable[[int, int, torch.Generator], Tensor]] = {"white": _white, "pink": _pink, "babble": _babble}
