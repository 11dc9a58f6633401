"""``scenes-video``: shapes that move and collide, with a sound at each collision.

A clip is a scene of three objects that move on a plane. The first hits the second, which lies still until then; the
third moves too, and meets only walls. Each object collides like a disc of its radius whose mass is its area. The first
object meets a wall either before the hit or after it, never both: ``story`` says the same words in another order, and a
clip played backwards does not show what its caption says. Attributes, grounds and splits are those of
``Scenes(objects=3)``. Clip i of a split is a function of (split, i, seed, seconds); ``fps`` only says how many frames
show it.

Frame k shows the moment (k + ½) / fps, the middle of its time, so that an event is nearest to the frame it falls in.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmlearn.data.hashing import stream, uniform
from mmlearn.data.readers.sound import RATE
from mmlearn.data.synthetic import drawing
from mmlearn.data.synthetic.dataset import Rendered
from mmlearn.data.synthetic.drawing import CANVAS
from mmlearn.data.synthetic.layouts import RADII, SPLITS, Layout, scene_layout
from mmlearn.data.synthetic.motion import WALL, Motion, follow, join
from mmlearn.data.synthetic.scene_sound import LOUDNESS, tones
from mmlearn.data.synthetic.scenes import attributes

HITS, HIT, THIRD = range(3)  # the numbers of the objects
ORDERS = ("wall first", "wall last")
STORIES = ("the {0} hits a wall, then the {1}", "the {0} hits the {1}, then a wall")
EVENTS = 12  # more than any clip has that is kept
TRIES = 64  # starts drawn at once to find one that does what a clip should
PATIENCE = 32  # how often, before there is another plan
APART = 0.05  # of the clip at least between two events, and before the first and behind the last
AWAY = (27, 39)  # how far what hits is from the other at first
SPEEDS = (18, 140)  # of what hits, in units of the canvas and the clip
OFFSETS = 4  # per pixel and axis, at which objects are drawn
RING, DECAY, RISE = RATE // 4, 0.06, RATE // 500  # samples, seconds, samples


# Motion.


def stage(split: str, index: np.ndarray, seed: int, radius: Float[np.ndarray, "n 3"], seconds: float) -> Motion:
    """The motion of each clip: the first of a stream of random starts that does what a clip should."""
    left, kept, rows, attempt = np.arange(len(index)), [], [], 0
    while len(left):
        plans = plan(split, index[left], seed, attempt // PATIENCE)
        order, moment, away, discs = (np.repeat(part, TRIES, 0) for part in (*plans, radius[left]))
        tries = index[left, None].astype(np.uint64) * np.uint64(TRIES) + np.arange(TRIES, dtype=np.uint64)
        numbers = uniform(stream("scene-video", split, seed, attempt), tries.ravel(), 9).astype(float)
        position, velocity = _start(numbers, discs, order, moment, away)
        can = np.flatnonzero(_can_be(position, velocity, discs))
        runs = follow(position[can], velocity[can] / seconds, discs[can], CANVAS, seconds, EVENTS)
        good = np.flatnonzero(_is_a_clip(runs, order[can], seconds))
        found, first = np.unique(can[good] // TRIES, return_index=True)
        kept.append(runs.part(good[first]))
        rows.append(left[found])
        left, attempt = np.delete(left, found), attempt + 1
    return join(kept).part(np.concatenate(rows).argsort())


def plan(split: str, index: np.ndarray, seed: int, again: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each clip which of ``ORDERS`` it has, the share of it that is over at the hit, and how far the way is, (n,).

    They are drawn apart, so that neither the time of the hit nor a first look tells the order. The last two are drawn
    ``again`` where no clip is found; that is about one in a hundred.
    """
    order = uniform(stream("scene-video order", split, seed), index, 1)[:, 0]
    moment, away = uniform(stream("scene-video plan", split, seed, again), index, 2).astype(float).T
    return (order * len(ORDERS)).astype(int), 0.35 + 0.25 * moment, AWAY[0] + (AWAY[1] - AWAY[0]) * away


def _start(
    numbers: np.ndarray, radius: np.ndarray, order: np.ndarray, moment: np.ndarray, away: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions and velocities per clip, (m, 3, 2) both: the first aims at the second, straight or by way of a wall."""
    rows = np.arange(len(numbers))
    edge, turn = radius[:, [HITS, THIRD], None], 2 * np.pi * numbers[:, 4]
    first, third = (edge + numbers[:, :4].reshape(-1, 2, 2) * (CANVAS - 2 * edge)).swapaxes(0, 1)
    second = first + away[:, None] * np.stack([np.cos(turn), np.sin(turn)], -1)
    position, target = np.stack([first, second, third], 1), second.copy()
    axis, far = np.divmod((numbers[:, 5] * 4).astype(int), 2)
    wall = np.where(far, CANVAS - radius[:, HITS], radius[:, HITS])
    mirrored = 2 * wall - target[rows, axis]
    target[rows, axis] = np.where(order == 0, mirrored, target[rows, axis])
    ahead = target - first
    distance, reach = np.hypot(*ahead.T), radius[:, HITS] + radius[:, HIT]
    beside = np.minimum(0.6 * (2 * numbers[:, 6] - 1) * reach, distance)
    angle = np.arctan2(ahead[:, 1], ahead[:, 0]) + np.arcsin(np.clip(beside / np.maximum(distance, 1), -1, 1))
    way = np.sqrt(np.maximum(distance**2 - beside**2, 0)) - np.sqrt(reach**2 - beside**2)  # until they touch
    angles = np.stack([angle, np.zeros_like(angle), 2 * np.pi * numbers[:, 7]], 1)
    speeds = np.stack([way / moment, np.zeros_like(angle), 15 + 35 * numbers[:, 8]], 1)
    return position, speeds[..., None] * np.stack([np.cos(angles), np.sin(angles)], -1)


def _can_be(position: np.ndarray, velocity: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Whether at first all are inside and no two touch, and what hits is neither slow nor too fast."""
    inside = (abs(position - CANVAS / 2) <= CANVAS / 2 - radius[..., None]).all((1, 2))
    one, other = np.array([(0, 1), (0, 2), (1, 2)]).T
    apart = (np.linalg.norm(position[:, one] - position[:, other], axis=-1) > 2 * RADII.max() + 1).all(1)
    speed = np.linalg.norm(velocity[:, HITS], axis=-1)
    return inside & apart & (speed > SPEEDS[0]) & (speed < SPEEDS[1])


def _is_a_clip(runs: Motion, order: np.ndarray, seconds: float) -> np.ndarray:
    """Whether a run shows what a clip should: one hit, walls of the mover on one side of it, no two events at once."""
    there, zero = np.isfinite(runs.time), np.zeros((len(order), 1))
    bounds = np.sort(np.concatenate([zero, np.where(there, runs.time, seconds), zero + seconds], 1), 1)
    gaps = np.diff(bounds, axis=1)
    apart = ((gaps >= APART * seconds) | (bounds[:, :-1] == seconds)).all(1) & ~there[:, -1]
    pair = there & (runs.other != WALL)
    hit = pair & (runs.one == HITS) & (runs.other == HIT)
    moment = np.where(hit, runs.time, np.inf).min(1, keepdims=True)
    wall = there & (runs.other == WALL) & (runs.one == HITS)
    before, after = (wall & (runs.time < moment)).any(1), (wall & (runs.time > moment)).any(1)
    told = np.where(order == 0, before & ~after, after & ~before)
    return apart & (pair.sum(1) == 1) & hit.any(1) & told


# Picture and sound.


def draw(layout: Layout, centres: Float[np.ndarray, "n f 3 2"], size: int) -> Float[np.ndarray, "n f 3 size size"]:
    """Pictures of the objects at these positions (x and y in units of the canvas), to a quarter of a pixel."""
    (n, f), edge = centres.shape[:2], int(np.ceil(RADII.max() * size / CANVAS + 1))
    cover, paint = drawing.sprites(size, 2 * edge, tuple(k / OFFSETS for k in range(OFFSETS)))
    pixel, offset = np.divmod(np.rint(centres * (size / CANVAS * OFFSETS)).astype(int), OFFSETS)
    videos = np.empty((n, f, 3, size, size), np.float32)
    # One clip after another on the same canvas, which so stays in the processor's cache.
    canvas = np.zeros((f, 3, size + 2 * edge, size + 2 * edge), np.float32)
    inside = canvas[..., edge:-edge, edge:-edge]
    for i, looks in enumerate(_looks(layout)):
        inside[:] = drawing.grounds(size)[layout.ground[i]]
        for k, (shape, texture, radius, colour) in enumerate(looks):
            (x, y), (left, top) = offset[i, :, k].T, pixel[i, :, k].T
            parts = cover[shape, radius, x, y], paint[shape, texture, radius, x, y]
            drawing.paste(canvas, (np.arange(f), top, left), *parts, np.full(f, colour))
        videos[i] = inside
    return videos


def _looks(layout: Layout) -> np.ndarray:
    """Shape, texture, size and colour of the three objects of each clip, (n, 3, 4)."""
    parts = np.stack([layout.shape, layout.texture, layout.size, layout.colour], -1)
    return parts[np.arange(len(parts))[:, None], _objects(layout)]


def _objects(layout: Layout) -> np.ndarray:
    """The numbers of the objects of each clip in the layout, (n, 3): the caption's two, and the third."""
    return np.concatenate([layout.mentioned, np.full((len(layout.mentioned), 1), THIRD)], 1)


@lru_cache(maxsize=1)
def _ring() -> np.ndarray:
    """How loud a struck object is over time, (samples,): 1 at once, then ever less."""
    number = np.arange(RING)
    fade, rise = np.minimum(1, (RING - number) / (RING / 10)), np.minimum(1, (number + 1) / RISE)
    return (rise * fade * np.exp(-number / RATE / DECAY)).astype(np.float32)


def sound(layout: Layout, motion: Motion, samples: int) -> Float[np.ndarray, "n 3 samples"]:
    """Each object's sound: its tone, from the sample of each collision it is in, and fading within a quarter second."""
    looks, loudness = _looks(layout), np.array(list(LOUDNESS.values()), np.float32)
    waves = np.zeros((*looks.shape[:2], samples), np.float32)
    for i, event in zip(*np.nonzero(np.isfinite(motion.time))):
        at = int(motion.time[i, event] * RATE)
        for k in {motion.one[i, event], motion.other[i, event]} - {WALL}:
            shape, _, size, colour = looks[i, k]
            part = waves[i, k, at : at + RING]
            part += loudness[size] * tones()[shape, colour, : len(part)] * _ring()[: len(part)]
    return waves


# The data set.


@dataclass(frozen=True)
class Event:
    """A collision: of two objects, of which the first moved, or of one and a wall."""

    time: float  # in seconds
    sample: int
    frame: int
    objects: tuple[int, ...]


@dataclass(frozen=True)
class MovingObject:
    """The attributes of one object."""

    size: str
    texture: str
    colour: str
    shape: str

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True, repr=False)
class VideoSample:
    """A clip and all that is known of it. Object 0 hits object 1; object 2 meets walls only.

    ``video`` (f, 3, size, size) is float32 in [0, 1]; ``sources`` (3, samples) are the objects' sounds at 16 kHz.
    """

    video: Float[Tensor, "f 3 size size"]
    sources: Float[Tensor, "3 samples"]
    fps: int
    order: int  # of ORDERS
    attributes: Layout
    motion: Motion
    row: int  # of the attributes and the motion
    source: str  # what it is called in messages

    @cached_property
    def waveform(self) -> Float[Tensor, "samples"]:
        """The sum of the sources."""
        return self.sources.sum(0)

    @cached_property
    def objects(self) -> tuple[MovingObject, ...]:
        """The one that hits, the one that is hit, and the third."""
        numbers = _objects(self.attributes)[self.row].tolist()
        return tuple(MovingObject(*attributes(self.attributes, self.row, k)) for k in numbers)

    @cached_property
    def caption(self) -> str:
        """What hits what."""
        return f"the {self.objects[HITS].name} hits the {self.objects[HIT].name}"

    @cached_property
    def story(self) -> str:
        """The same with a wall, in the order of the clip."""
        return STORIES[self.order].format(self.objects[HITS].name, self.objects[HIT].name)

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """Every collision, in order."""
        parts = (getattr(self.motion, name)[self.row].tolist() for name in ("time", "one", "other"))
        return tuple(
            Event(time, int(time * RATE), int(time * self.fps), (one,) if other == WALL else (one, other))
            for time, one, other in zip(*parts)
            if time < np.inf
        )

    @cached_property
    def hit(self) -> Event:
        """The collision that the caption tells of."""
        return next(event for event in self.events if len(event.objects) == 2)

    @cached_property
    def centres(self) -> Float[Tensor, "f 3 2"]:
        """Where each object's middle is in each frame, x and y in pixels."""
        moments = _moments(len(self.video), self.fps)[None]
        at = self.motion.part(np.array([self.row])).at(moments)[0] * self.video.shape[-1] / CANVAS
        return torch.from_numpy(at.astype(np.float32))

    @property
    def image(self) -> Float[Tensor, "3 size size"]:
        """The frame of the hit."""
        return self.video[self.hit.frame]


def _moments(frames: int, fps: int) -> np.ndarray:
    """The middle of each frame's time, (f,)."""
    return (np.arange(frames) + 0.5) / fps


class VideoScenes(Rendered):
    """Clip i of ``split``, for any i ≥ 0, of ``seconds`` with ``fps`` frames a second.

    Raises ``ValueError`` as :class:`Rendered` does, for seconds outside 1 to 10, and for frames a second that are not 1
    to 100, or do not divide 16,000 or the clip.
    """

    name, splits = "scenes-video", SPLITS
    shows = "three shapes that move and collide, with a sound at each collision; who hits whom, and in what order"

    def __init__(self, split: str = "train", *, size: int = 64, seconds: float = 2.0, fps: int = 10, **options: Any):
        super().__init__(split, size=size, **options)
        if not 1 <= seconds <= 10:
            raise ValueError(f"A clip lasts 1 to 10 seconds, got {seconds}.")
        if not 1 <= fps <= 100 or RATE % fps or not float(seconds * fps).is_integer():
            raise ValueError(f"Frames a second divide {RATE} and fill {seconds} seconds; got fps={fps}.")
        self.seconds, self.fps = seconds, fps

    def _make(self, index: np.ndarray) -> list[VideoSample]:
        layout = scene_layout(self.split, index, self.seed, 3)
        motion = stage(self.split, index, self.seed, RADII[_looks(layout)[..., 2]], self.seconds)
        moments = _moments(round(self.seconds * self.fps), self.fps)
        videos = torch.from_numpy(draw(layout, motion.at(np.tile(moments, (len(index), 1))), self.size))
        sources = torch.from_numpy(sound(layout, motion, round(self.seconds * RATE)))
        order = plan(self.split, index, self.seed)[0].tolist()
        return [
            VideoSample(*parts, self.fps, order[i], layout, motion, i, f"{self.name}, {self.split}, clip {index[i]}")
            for i, parts in enumerate(zip(videos, sources))
        ]
