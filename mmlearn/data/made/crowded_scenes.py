"""``crowded-scenes``: scenes of 16 to 32 objects with long captions, for larger pictures and larger models.

The objects, their attributes and their words are those of ``scenes``. They stand on a jittered 7 × 7 grid, so that at
224 pixels a cell is 32 × 32. The caption mentions four to eight objects in two to four clauses, each by its size,
texture, colour and shape. A mentioned object has a twin of the same colour and shape, so that only size or texture
tells them apart; one more object at least has its colour and another shape, and another has its shape and another
colour. No name fits two objects. Splits and ``HELD_OUT`` pairs are as in ``scenes``; in ``composition`` one of the
mentioned objects, and its twin, are such a pair.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch

from mmlearn.data.hashing import stream, uniform
from mmlearn.data.made import drawing
from mmlearn.data.made.drawing import JITTER
from mmlearn.data.made.rendered import Rendered
from mmlearn.data.made.scenes import (
    COLOURS,
    HELD_OUT,
    RELATIONS,
    SHAPES,
    SIZES,
    SPLITS,
    TEMPLATES,
    TEXTURES,
    Layout,
    Link,
    SceneSample,
    attributes,
    draw,
)

FEWEST, MOST = 16, 32  # objects
GRID = 7  # rows and columns
# How many objects each clause mentions, the shortest captions first.
PLANS = ((2, 2), (3, 2), (3, 3), (2, 2, 2), (3, 2, 2), (3, 3, 2), (2, 2, 2, 2))
MORE = (" and {1} a {2}", " and {1} the {2}")  # what follows on a clause of TEMPLATES that mentions a third object
MENTIONS = 8  # at most
PALETTE = 8  # shapes of a scene, and one to stand in for a held-out one


@dataclass(frozen=True)
class CrowdedLayout(Layout):
    """A :class:`Layout` of up to 32 objects; (n, 8) are the objects that the caption mentions, in its order.

    ``relation`` says how each stands to the first of its clause, the other way round, and ``template`` (n, 4) has one
    number a clause.
    """

    grid: ClassVar[int] = GRID

    plan: np.ndarray  # (n,), which of PLANS


def lay_out_crowd(split: str, index: np.ndarray, seed: int, objects: int | None = None) -> CrowdedLayout:
    """Decide everything about these scenes: with 16 to 32 objects, or with ``objects`` of them."""
    widths = len(COLOURS), len(SHAPES), GRID**2, MOST, 2 * MOST, MENTIONS, 4, 5
    numbers = uniform(stream("crowded-scenes", split, seed), index, sum(widths))
    colour, shape, place, style, jitter, axis, template, rest = np.split(numbers, np.cumsum(widths)[:-1], axis=1)
    plan, count, first, ground, question = rest.T

    sizes = np.array([sum(plan) for plan in PLANS])
    allowed = sum(3 * sizes <= (objects or MOST))  # each mention has three objects of its own
    plan = (plan * allowed).astype(int)
    mentions = sizes[plan]
    fewest = np.maximum(FEWEST, 3 * mentions)
    count = fewest + (count * (MOST + 1 - fewest)).astype(int) if objects is None else np.full(len(index), objects)
    colour, shape = _crowd(colour, shape, mentions, composition=split == "composition")
    style = _styles(style, mentions)
    # Whichever of the mentioned objects comes first: object 0 is the one that is new in composition.
    mentioned = (np.arange(MENTIONS) + (first * mentions).astype(int)[:, None]) % mentions[:, None]
    cell = place.argsort(1)[:, :MOST]
    return CrowdedLayout(
        colour=colour,
        shape=shape,
        size=style // len(TEXTURES),
        texture=style % len(TEXTURES),
        cell=cell,
        jitter=(jitter * (2 * JITTER + 1)).astype(int).reshape(-1, MOST, 2),
        count=count,
        mentioned=mentioned,
        relation=_relate(np.take_along_axis(cell, mentioned, 1), SUBJECTS[plan], axis),
        template=(template * len(TEMPLATES)).astype(int),
        ground=drawing.grounds_of(split, SPLITS, ground),
        question_bits=(question * 2**24).astype(int),
        plan=plan,
    )


def _subjects(plan: tuple[int, ...]) -> list[int]:
    """For each mention the first one of its clause."""
    starts = np.cumsum([0, *plan[:-1]])
    found = [int(start) for start, size in zip(starts, plan) for _ in range(size)]
    return found + [0] * (MENTIONS - len(found))


SUBJECTS = np.array([_subjects(plan) for plan in PLANS])


def _crowd(
    colour_key: np.ndarray, shape_key: np.ndarray, mentions: np.ndarray, composition: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Colour and shape of 32 objects for each row of random numbers, (n, 12) each.

    With m mentions, objects 0 to m - 1 are mentioned and m to 2m - 1 are their twins. Object k beyond has the colour of
    mention k mod m; of the first m of them the shape is the next mention's, of all others one further along.
    """
    k, m, rows = np.arange(MOST), mentions[:, None], np.arange(len(mentions))[:, None]
    own, step = k % m, np.maximum(k // m - 1, 0)
    colour = colour_key.argsort(1)[rows, own]
    shapes = shape_key.argsort(1)
    shape = shapes[rows, np.where(step == 1, (own + 1) % m, (own + step) % PALETTE)]
    unseen = np.array([shape for _, shape in HELD_OUT])[colour]
    shape = np.where(shape == unseen, shapes[:, PALETTE, None], shape)
    if composition:
        shape = np.where((own == 0) & (step == 0), unseen, shape)
    return colour, shape


def _styles(key: np.ndarray, mentions: np.ndarray) -> np.ndarray:
    """Size and texture of 32 objects as one number each: a twin's is another than that of its mention."""
    styles, k, m = len(SIZES) * len(TEXTURES), np.arange(MOST), mentions[:, None]
    style = (key * styles).astype(int)
    other = (np.take_along_axis(style, np.broadcast_to(k % m, style.shape), 1) + 1 + key * (styles - 1)).astype(int)
    return np.where((k >= m) & (k < 2 * m), other % styles, style)


def _relate(cell: np.ndarray, subject: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """How the first mention of each clause stands to every other, (n, 8): one of RELATIONS."""
    first = np.take_along_axis(cell, subject, 1)
    rows_apart, columns_apart = first // GRID - cell // GRID, first % GRID - cell % GRID
    across = (columns_apart != 0) & ((rows_apart == 0) | (axis < 0.5))
    return np.where(across, columns_apart > 0, 2 + (rows_apart > 0))


@dataclass(frozen=True, repr=False)
class CrowdedSample(SceneSample):
    """A crowded scene and all that is known about it, as :class:`SceneSample` has it; its caption says more."""

    layout: CrowdedLayout

    @cached_property
    def _said(self) -> tuple[str, tuple[Link, ...], tuple[tuple[int, str, int], ...]]:
        """The caption, its links, and what it says."""
        layout, i = self.layout, self.row
        caption, links, relations, at = "", [], [], 0
        for clause, size in enumerate(PLANS[layout.plan[i]]):
            things = [int(layout.mentioned[i, at + k]) for k in range(size)]
            names = [" ".join(attributes(layout, i, k)) for k in things]
            how = [RELATIONS[layout.relation[i, at + k]] for k in range(size)]
            form = layout.template[i, clause]
            text = TEMPLATES[form].format(names[0], how[1], names[1])
            text += "".join(MORE[form].format(None, how[k], names[k]) for k in range(2, size))
            caption += "; " * bool(caption)
            start = len(caption)
            caption += text
            numbers = [self._order.index(k) for k in things]
            for name, number in zip(names, numbers):
                start = caption.index(name, start)
                links.append(Link(start, start + len(name), number))
                start += len(name)
            relations += [(numbers[0], how[k], numbers[k]) for k in range(1, size)]
            at += size
        return caption, tuple(links), tuple(relations)

    @property
    def caption(self) -> str:
        return self._said[0]

    @property
    def links(self) -> tuple[Link, ...]:
        """Which characters of the caption name which object."""
        return self._said[1]

    @property
    def relations(self) -> tuple[tuple[int, str, int], ...]:
        """All that the caption says: subject, predicate, object."""
        return self._said[2]

    @property
    def relation(self) -> tuple[int, str, int]:
        """What the caption says first."""
        return self.relations[0]


class CrowdedScenes(Rendered):
    """Scenes with 16 to 32 objects, or with ``objects`` of them, and with captions of two to four clauses.

    Fewer than 24 ``objects`` have shorter captions: a third of them at most is mentioned. Raises ``ValueError`` as
    :class:`Rendered` does, and for fewer than 16 or more than 32 objects.
    """

    name, splits = "crowded-scenes", SPLITS
    disk = "none: drawn on the fly"
    shows = (
        "16 to 32 shapes on a finer grid, of which a long caption names four to eight; else as scenes, for 224 pixels"
    )
    smallest = 28

    def __init__(
        self,
        split: str = "train",
        *,
        size: int = 224,
        seed: int = 0,
        length: int = 1_000_000,
        objects: int | None = None,
    ):
        super().__init__(split, size=size, seed=seed, length=length)
        if objects is not None and not FEWEST <= objects <= MOST:
            raise ValueError(f"A crowded scene has {FEWEST} to {MOST} objects, got {objects}.")
        self.objects = objects

    def _render(self, index: np.ndarray) -> list[CrowdedSample]:
        layout = lay_out_crowd(self.split, index, self.seed, self.objects)
        return [CrowdedSample(image, layout, i) for i, image in enumerate(torch.from_numpy(draw(layout, self.size)))]
