"""``talking-lips``: drawn mouths that speak syllables; how much the eye and the ear can tell is known exactly.

A unit is a letter with a mouth (viseme) and a sound. Consonants come in pairs: p, b and m have closed lips, t, d and n
parted ones; p sounds like t, b like d, and m like n. All vowels sound different, but a and o share a mouth, as do e and
i, and u and y. Units that share a sound give the same samples, bit for bit, and units that share a mouth the same
pixels. A word has one or two syllables, each with any consonant and any vowel, all equally likely, so that the past
says nothing about what follows. Therefore :func:`ceiling` is exact: of the frames in which a unit sounds, the ear can
tell 9/12, the eye 5/12, and both together all.

There are 25 frames a second: frame k belongs to samples 640 k to 640 k + 639 at 16 kHz, and units change between
frames. Splits: ``train``, ``val`` and ``test`` have six speakers; ``unseen-speaker`` has two others. A picture of one
split cannot occur in another, because each split has its own grounds. Clip i is a function of (split, i, seed,
seconds).

This is no simulation of speech: formants and mouths are rough, and there is no coarticulation. All of it is known.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby, product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmlearn.data.hashing import stream, uniform
from mmlearn.data.readers.sound import RATE
from mmlearn.data.synthetic import drawing
from mmlearn.data.synthetic.dataset import Rendered

FPS = 25
HOP = RATE // FPS  # samples in a frame
SPLITS = ("train", "val", "test", "unseen-speaker")
# Half the width and half the height of the opening, and how thick the lips are; the picture is 2 × 2.
MOUTHS = {
    "rest": (0.40, 0.04, 0.14),
    "closed": (0.34, 0.0, 0.08),
    "parted": (0.34, 0.12, 0.12),
    "open": (0.36, 0.40, 0.12),
    "wide": (0.60, 0.16, 0.12),
    "round": (0.16, 0.22, 0.18),
}
# Formants in Hz, how loud the voice is, and how loud the noise of breath.
SOUNDS = {
    "silence": ((), 0.0, 0.0),
    "burst": ((), 0.0, 0.6),
    "buzz": ((200,), 0.8, 0.3),
    "hum": ((250, 1100), 0.7, 0.0),
    "a": ((750, 1300), 1.0, 0.0),
    "o": ((500, 850), 1.0, 0.0),
    "e": ((450, 2000), 1.0, 0.0),
    "i": ((280, 2400), 1.0, 0.0),
    "u": ((300, 650), 1.0, 0.0),
    "y": ((270, 1800), 1.0, 0.0),
}
# Six consonants, each a mouth and a sound, and as many vowels, whose names are those of their sounds.
UNITS = dict(zip("pbmtdn", product(("closed", "parted"), ("burst", "buzz", "hum"))))
UNITS |= dict(zip("aoeiuy", zip(("open", "open", "wide", "wide", "round", "round"), "aoeiuy")))
REST = 0  # the number of a frame without a unit, and of CTC's blank; units count from 1
TOKENS = ("", *UNITS, " ")  # what the numbers of a target stand for
LEVEL = 0.1  # root mean square of a vowel
FADE = HOP // 16  # samples at each end of a unit
BANDWIDTH = 120  # Hz, of a formant


@dataclass(frozen=True)
class Speaker:
    """A voice and a face."""

    pitch: int  # Hz, whole, so that a voice repeats after a second
    tract: float  # times every formant: a shorter throat sounds higher
    skin: tuple[float, float, float]
    lips: tuple[float, float, float]


SPEAKERS = (
    Speaker(96, 0.95, (0.95, 0.80, 0.70), (0.75, 0.25, 0.28)),
    Speaker(112, 1.00, (0.55, 0.38, 0.28), (0.45, 0.18, 0.20)),
    Speaker(128, 0.98, (0.80, 0.62, 0.48), (0.66, 0.30, 0.30)),
    Speaker(176, 1.08, (0.98, 0.86, 0.78), (0.85, 0.20, 0.35)),
    Speaker(192, 1.12, (0.40, 0.27, 0.20), (0.55, 0.15, 0.25)),
    Speaker(208, 1.15, (0.72, 0.52, 0.40), (0.80, 0.28, 0.30)),
    Speaker(144, 1.03, (0.66, 0.46, 0.34), (0.60, 0.22, 0.22)),  # the last two are never trained on
    Speaker(224, 1.10, (0.90, 0.72, 0.60), (0.78, 0.22, 0.42)),
)
SEEN = 6


def ceiling(audio: bool, video: bool) -> float:
    """The share of frames in which a unit sounds that can be told from clean sound, from pictures, or from both.

    Of units that share all that is seen and heard one can be guessed, and all are as frequent. Without either it is
    chance.
    """
    return len({(sound if audio else "", mouth if video else "") for mouth, sound in UNITS.values()}) / len(UNITS)


# What is said.


@dataclass(frozen=True)
class Speech:
    """What n clips of f frames say, who speaks, and how it is shown."""

    unit: np.ndarray  # (n, f), 0 for rest
    starts: np.ndarray  # (n, f), whether a unit or a rest begins with this frame
    speaker: np.ndarray  # (n,)
    loudness: np.ndarray  # (n,), 0.5 to 1
    position: np.ndarray  # (n, f, 2), of the mouth: y and x, each 0 to 2
    ground: np.ndarray  # (n,)


def speak(split: str, index: np.ndarray, seed: int, frames: int) -> Speech:
    """Decide everything about these clips: words of one or two syllables, each unit and each rest 2 to 4 frames."""
    n, most = len(index), frames // 6  # the shortest word and its rest have 6 frames
    numbers = uniform(stream("talking", split, seed), index, 10 * most + 2 * frames + 3)
    of_words, of_positions, rest = np.split(numbers, [10 * most, 10 * most + 2 * frames], 1)
    second, letters, lasts = np.split(of_words.reshape(n, most, 10), [1, 5], 2)

    half = len(UNITS) // 2
    unit = 1 + (letters * half).astype(int) + half * (np.arange(4) % 2)  # consonant, vowel, and again
    unit = np.concatenate([np.zeros((n, most, 1), int), unit], 2)  # a rest before each word
    lasts = 2 + (lasts * 3).astype(int)
    lasts[..., 3:] *= second < 0.5
    lasts *= (lasts.sum(2).cumsum(1) <= frames - 2)[..., None]  # words that end in time for a last rest

    ends = lasts.reshape(n, -1).cumsum(1)
    number = (ends[:, None] <= np.arange(frames)[:, None]).sum(2)  # which of the units and rests each frame has
    unit = np.concatenate([unit.reshape(n, -1), np.zeros((n, 1), int)], 1)
    first, last = (SEEN, len(SPEAKERS)) if split == "unseen-speaker" else (0, SEEN)
    return Speech(
        unit=np.take_along_axis(unit, number, 1),
        starts=np.diff(number, axis=1, prepend=-1) > 0,
        speaker=first + (rest[:, 0] * (last - first)).astype(int),
        loudness=0.5 + 0.5 * rest[:, 1],
        position=(of_positions * 3).astype(int).reshape(n, frames, 2),
        ground=drawing.grounds_of(split, SPLITS, rest[:, 2]),
    )


# How it looks and sounds.


@lru_cache(maxsize=4)
def mouths(size: int) -> tuple[np.ndarray, np.ndarray]:
    """How much of each pixel lips and opening together cover, and the opening alone: (mouths, y, x, size, size)."""
    points, step = (np.arange(size) + 0.5) * 2 / size - 1, 2 / 32
    y, x = np.meshgrid(points, points, indexing="ij")
    positions = [(0.25 + down * step, right * step) for down in (-1, 0, 1) for right in (-1, 0, 1)]

    def ellipse(width: float, height: float) -> np.ndarray:
        if not height:
            return np.zeros((3, 3, size, size))
        far = [np.hypot((x - right) / width, (y - down) / height) for down, right in positions]
        edge = min(width, height) * size / 2  # pixels from the middle to the nearer edge
        return np.clip(0.5 + (1 - np.array(far)) * edge, 0, 1).reshape(3, 3, size, size)

    outer = [ellipse(width + lip, height + lip) for width, height, lip in MOUTHS.values()]
    inner = [ellipse(width, height) for width, height, _ in MOUTHS.values()]
    return np.array(outer, np.float32), np.minimum(outer, inner).astype(np.float32)


def draw(speech: Speech, size: int) -> Float[np.ndarray, "n f 3 size size"]:
    """The pictures, float32 in [0, 1]."""
    outer, inner = mouths(size)
    points = (np.arange(size) + 0.5) * 2 / size - 1
    far = np.hypot(points / 0.95, (points[:, None] + 0.1) / 1.05)
    face = np.clip(0.5 + (1 - far) * size / 2, 0, 1).astype(np.float32)
    shape = np.array([0, *(list(MOUTHS).index(mouth) for mouth, _ in UNITS.values())])[speech.unit]
    videos = np.empty((*shape.shape, 3, size, size), np.float32)
    for i, video in enumerate(videos):
        speaker = SPEAKERS[speech.speaker[i]]
        skin, lips = (np.array(colour, np.float32)[:, None, None] for colour in (speaker.skin, speaker.lips))
        still = drawing.grounds(size)[speech.ground[i]] * (1 - face) + skin * face
        down, right = speech.position[i].T
        mouth, opening = (part[shape[i], down, right][:, None] for part in (outer, inner))
        video[:] = (1 - mouth) * still + (mouth - opening) * lips + opening * (0.2 * lips)
    return videos


@lru_cache(maxsize=1)
def voices() -> Float[np.ndarray, "speakers sounds 25 hop"]:
    """One second of each speaker's voice in each sound; then it repeats."""
    turns = np.arange(RATE) / RATE
    waves = np.zeros((len(SPEAKERS), len(SOUNDS), RATE), np.float32)
    for speaker, rows in zip(SPEAKERS, waves):
        harmonic = np.arange(1, 4000 // speaker.pitch + 1)
        phase = np.pi * harmonic**2 / len(harmonic)  # of a wave without high peaks (Schroeder 1970)
        sines = np.sin(2 * np.pi * speaker.pitch * harmonic[:, None] * turns + phase[:, None])
        for (formants, loudness, _), row in zip(SOUNDS.values(), rows):
            if loudness:
                away = (speaker.pitch * harmonic - speaker.tract * np.array(formants)[:, None]) / BANDWIDTH
                weight = (0.01 + 1 / (1 + away**2)).sum(0) / np.sqrt(harmonic)
                row[:] = LEVEL * loudness * np.sqrt(2) * weight / np.linalg.norm(weight) @ sines
    return waves.reshape(*waves.shape[:2], FPS, HOP)


def sound(speech: Speech, noise: Float[np.ndarray, "n samples"]) -> Float[np.ndarray, "n samples"]:
    """The waveforms, in [-1, 1]; ``noise`` from 0 to 1 is the speakers' breath."""
    kind = np.array([0, *(list(SOUNDS).index(sound) for _, sound in UNITS.values())])[speech.unit]
    n, f = kind.shape
    breath = np.array([loudness for _, _, loudness in SOUNDS.values()], np.float32)[kind] * LEVEL * np.float32(12**0.5)
    waves = voices()[speech.speaker[:, None], kind, np.arange(f) % FPS]
    waves += (noise.reshape(n, f, HOP) - np.float32(0.5)) * breath[..., None]
    # A unit's edges are faded, so that a change does not click.
    rise = (np.arange(FADE, dtype=np.float32) + 0.5) / FADE
    waves[speech.starts, :FADE] *= rise
    waves[np.roll(speech.starts, -1, 1), -FADE:] *= rise[::-1]
    return waves.reshape(n, -1) * speech.loudness[:, None]


# The data set.


@dataclass(frozen=True)
class Word:
    """A word, and its frames: ``first`` and those before ``stop``."""

    text: str
    first: int
    stop: int


@dataclass(frozen=True, repr=False)
class LipsSample:
    """A clip of someone who speaks.

    ``video`` (f, 3, size, size) is float32 in [0, 1], ``waveform`` (640 f,) is at 16 kHz, ``units`` (f,) numbers the
    unit of each frame, 0 where there is none.
    """

    video: Float[Tensor, "f 3 size size"]
    waveform: Float[Tensor, "samples"]
    units: Int[Tensor, "f"]
    speaker: int
    source: str  # what it is called in messages

    @cached_property
    def words(self) -> tuple[Word, ...]:
        """What is said, word by word."""
        words, frames = [], enumerate(self.units.tolist())
        for spoken, group in groupby(frames, key=lambda item: item[1] != REST):
            if spoken:
                number, unit = zip(*group)
                words.append(Word("".join(TOKENS[one] for one, _ in groupby(unit)), number[0], number[-1] + 1))
        return tuple(words)

    @cached_property
    def transcript(self) -> str:
        """The words with spaces between."""
        return " ".join(word.text for word in self.words)

    @property
    def caption(self) -> str:
        return self.transcript

    @cached_property
    def target(self) -> Int[Tensor, "t"]:
        """The transcript as numbers of ``TOKENS``, for CTC with 0 as its blank."""
        return torch.tensor([TOKENS.index(letter) for letter in self.transcript])

    @property
    def image(self) -> Float[Tensor, "3 size size"]:
        """The middle frame."""
        return self.video[len(self.video) // 2]


class TalkingLips(Rendered):
    """Clip i of ``split``, for any i ≥ 0, of ``seconds``.

    Raises ``ValueError`` as :class:`Rendered` does, and for seconds that are not 1 to 20 or no whole number of frames.
    """

    name, splits, smallest = "talking-lips", SPLITS, 16
    shows = "drawn mouths that speak syllables, of which eye and ear each tell a known part; a unit for each frame"
    evaluated_on = "unseen-speaker"

    def __init__(self, split: str = "train", *, size: int = 32, seconds: float = 2.0, **options: Any):
        super().__init__(split, size=size, **options)
        if not 1 <= seconds <= 20 or not float(seconds * FPS).is_integer():
            raise ValueError(f"A clip lasts 1 to 20 seconds and a whole number of 1/{FPS} s, got {seconds}.")
        self.seconds = seconds

    def _make(self, index: np.ndarray) -> list[LipsSample]:
        frames = round(self.seconds * FPS)
        speech = speak(self.split, index, self.seed, frames)
        breath = uniform(stream("breath", self.split, self.seed), index, frames * HOP)
        parts = (draw(speech, self.size), sound(speech, breath), speech.unit)
        return [
            LipsSample(*each, int(speech.speaker[i]), f"{self.name}, {self.split}, clip {index[i]}")
            for i, each in enumerate(zip(*map(torch.from_numpy, parts)))
        ]
