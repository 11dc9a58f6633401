"""``scenes``: rendered pictures about which everything is known, so that alignment can be checked.

Eight or nine objects stand on a jittered 4 × 4 grid; the caption mentions two of them and how they stand to each other.
A scene is a conjunction search: each mentioned object shares its colour with one other object and its shape with
another, so neither word alone finds it, and both together do. The other objects have a third colour or a third shape.
With ``objects=n`` there are n instead, and no two have the same colour or the same shape. Scene i of a split is a
function of (split, i, seed, objects) and nothing else.

There are four splits. ``train``, ``val`` and ``test`` never contain the twelve colour–shape pairs of ``HELD_OUT``; in
``composition`` the caption mentions one of them. A picture of one split cannot occur in another, because each split has
its own grounds.

Source of the display: Treisman & Gelade 1980, "A Feature-Integration Theory of Attention", experiment I.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmlearn.data.hashing import stream, uniform
from mmlearn.data.made import drawing
from mmlearn.data.made.drawing import CANVAS, GRID, JITTER
from mmlearn.data.made.questions import Question, ask
from mmlearn.data.made.rendered import Rendered
from mmlearn.data.made.second_language import translate, translated_words

SPLITS = ("train", "val", "test", "composition")
COLOURS, SHAPES = tuple(drawing.COLOURS), tuple(drawing.SHAPES)
SIZES, TEXTURES = tuple(drawing.SIZES), tuple(drawing.TEXTURES)
RELATIONS = ("left of", "right of", "above", "below")
TEMPLATES = ("a {0} {1} a {2}", "the {0} is {1} the {2}")
OBJECTS = 9  # at most; every other scene has one less
CELL = CANVAS // GRID  # the side of a cell in the units of SIZES and JITTER
# Each colour and each shape is in exactly one pair, so every part is known and only the combination is new.
HELD_OUT = tuple((colour, (5 * colour + 1) % len(SHAPES)) for colour in range(len(COLOURS)))


@dataclass(frozen=True)
class SceneObject:
    """One object: its four attributes, where its middle is and what it fills, in pixels."""

    size: str
    texture: str
    colour: str
    shape: str
    cell: int  # from 0, in reading order
    centre: tuple[float, float]  # x, y
    box: tuple[float, float, float, float]  # left, top, right, bottom
    grid: int = GRID  # rows and columns of the picture

    @property
    def name(self) -> str:
        return f"{self.size} {self.texture} {self.colour} {self.shape}"

    @property
    def row(self) -> int:
        return self.cell // self.grid

    @property
    def column(self) -> int:
        return self.cell % self.grid


@dataclass(frozen=True)
class Link:
    """``caption[start:end]`` names object number ``object``."""

    start: int
    end: int
    object: int


@dataclass(frozen=True)
class Layout:
    """What stands where in n scenes, before it is drawn; (n, 9) are the objects, of which the last may be absent."""

    grid: ClassVar[int] = GRID  # rows and columns

    colour: np.ndarray  # (n, 9)
    shape: np.ndarray  # (n, 9)
    size: np.ndarray  # (n, 9)
    texture: np.ndarray  # (n, 9)
    cell: np.ndarray  # (n, 9), in reading order
    jitter: np.ndarray  # (n, 9, 2), x and y, from 0 to twice JITTER
    count: np.ndarray  # (n,)
    mentioned: np.ndarray  # (n, 2): subject and object of the caption
    relation: np.ndarray  # (n,)
    template: np.ndarray  # (n,)
    ground: np.ndarray  # (n,)
    question_bits: np.ndarray  # (n,)

    def part(self, chosen: np.ndarray) -> Self:
        """These scenes."""
        return replace(self, **{name: value[chosen] for name, value in vars(self).items()})

    def frame(self, size: int) -> tuple[int, int]:
        """The side of a cell in a picture of ``size`` pixels, and how far the grid is from the picture's edge."""
        side = size // self.grid
        return side, (size - self.grid * side) // 2

    def place(self, cell: np.ndarray, jitter: np.ndarray, size: int) -> np.ndarray:
        """Where the middle of each object is in a picture of ``size`` pixels, (..., 2): x and y."""
        side, edge = self.frame(size)
        column_row = np.stack([cell % self.grid, cell // self.grid], -1)
        return edge + ((column_row + 0.5) * CELL + jitter - JITTER) * (side / CELL)


def lay_out(split: str, index: np.ndarray, seed: int, objects: int | None = None) -> Layout:
    """Decide everything about these scenes."""
    widths = len(COLOURS), len(SHAPES), GRID**2, OBJECTS, OBJECTS, 2 * OBJECTS, 6
    numbers = uniform(stream("scenes", split, seed), index, sum(widths))
    colour, shape, place, size, texture, jitter, rest = np.split(numbers, np.cumsum(widths)[:-1], axis=1)
    count, swap, axis, template, ground, question = rest.T

    choose = _search if objects is None else _all_different
    colour, shape = choose(colour, shape, composition=split == "composition")
    cell = place.argsort(1)[:, :OBJECTS]
    mentioned = np.where(swap[:, None] < 0.5, [0, 1], [1, 0])
    return Layout(
        colour=colour,
        shape=shape,
        size=(size * len(SIZES)).astype(int),
        texture=(texture * len(TEXTURES)).astype(int),
        cell=cell,
        jitter=(jitter * (2 * JITTER + 1)).astype(int).reshape(-1, OBJECTS, 2),
        count=OBJECTS - (count < 0.5) if objects is None else np.full(len(index), objects),
        mentioned=mentioned,
        relation=relate(*np.take_along_axis(cell, mentioned, 1).T, GRID, axis),
        template=(template * len(TEMPLATES)).astype(int),
        ground=drawing.grounds_of(split, SPLITS, ground),
        question_bits=(question * 2**24).astype(int),
    )


def relate(subject: np.ndarray, other: np.ndarray, grid: int, axis: np.ndarray) -> np.ndarray:
    """How the subject's cell stands to the other's, as a number of ``RELATIONS``.

    Where both columns and rows differ, ``axis`` below 0.5 says it of the columns.
    """
    rows_apart, columns_apart = subject // grid - other // grid, subject % grid - other % grid
    across = (columns_apart != 0) & ((rows_apart == 0) | (axis < 0.5))
    return np.where(across, columns_apart > 0, 2 + (rows_apart > 0))


def _search(colour_key: np.ndarray, shape_key: np.ndarray, composition: bool) -> tuple[np.ndarray, np.ndarray]:
    """Colour and shape of nine objects for each row of random numbers, (n, 12) each; the first two are mentioned."""
    colours = colour_key.argsort(1)[:, :3]  # of the two mentioned objects, and of the crowd
    unseen = np.array([shape for _, shape in HELD_OUT])[colours]  # the shapes that these colours never have
    one, two, crowd = 0, 1, 2
    first = unseen[:, one] if composition else _best(shape_key, unseen[:, one], unseen[:, crowd])
    second = _best(shape_key, unseen[:, two], unseen[:, crowd], first)
    third = _best(shape_key, *unseen.T, first, second)
    shapes = np.stack([first, second, third], 1)
    return (
        colours[:, [one, two, one, two, crowd, crowd, crowd, crowd, crowd]],
        shapes[:, [one, two, crowd, crowd, one, two, crowd, crowd, crowd]],
    )


def _all_different(colour_key: np.ndarray, shape_key: np.ndarray, composition: bool) -> tuple[np.ndarray, np.ndarray]:
    """The same for nine objects that share neither colours nor shapes."""
    colours = colour_key.argsort(1)[:, :OBJECTS]
    unseen = np.array([shape for _, shape in HELD_OUT])[colours]
    shapes = [unseen[:, 0]] if composition else []
    while len(shapes) < OBJECTS:
        shapes.append(_best(shape_key, unseen[:, len(shapes)], *shapes))
    return colours, np.stack(shapes, 1)


def _best(key: np.ndarray, *forbidden: np.ndarray) -> np.ndarray:
    """For each row of keys the shape with the highest, without the forbidden ones."""
    key, rows = key.copy(), np.arange(len(key))
    for shape in forbidden:
        key[rows, shape] = -1
    return key.argmax(1)


def draw(layout: Layout, size: int) -> Float[np.ndarray, "n 3 size size"]:
    """The pictures of a layout, float32 in [0, 1]."""
    images = drawing.grounds(size)[layout.ground]
    grid, (side, edge) = layout.grid, layout.frame(size)
    inner = slice(edge, edge + grid * side)
    cells = images[:, :, inner, inner].reshape(len(images), 3, grid, side, grid, side)  # a view
    palette = np.array(list(drawing.COLOURS.values()), np.float32)
    x, y = np.moveaxis(layout.jitter, -1, 0)
    for k in range(layout.cell.shape[1]):
        scene = np.flatnonzero(k < layout.count)
        at = scene, k
        cover = drawing.sprites(side)[layout.shape[at], layout.size[at], x[at], y[at]]
        paint = drawing.painted(side)[layout.shape[at], layout.texture[at], layout.size[at], x[at], y[at]]
        row, column = np.divmod(layout.cell[at], grid)
        ground = cells[scene, :, row, :, column] * (1 - cover)[:, None]
        cells[scene, :, row, :, column] = ground + paint[:, None] * palette[layout.colour[at], :, None, None]
    return images


@dataclass(frozen=True, repr=False)
class SceneSample:
    """A scene and all that is known about it, computed when it is asked for.

    ``image`` is float32 (3, size, size) in [0, 1].
    """

    known: ClassVar[tuple[str, ...]] = SHAPES

    image: Float[Tensor, "3 size size"]
    layout: Layout
    row: int  # of the layout

    @cached_property
    def _names(self) -> tuple[str, str]:
        return tuple(" ".join(attributes(self.layout, self.row, k)) for k in self.layout.mentioned[self.row].tolist())

    @cached_property
    def caption(self) -> str:
        template, relation = self.layout.template[self.row], self.layout.relation[self.row]
        return TEMPLATES[template].format(self._names[0], RELATIONS[relation], self._names[1])

    @property
    def translation(self) -> str:
        """The caption in :mod:`the second language <mmlearn.data.made.second_language>`."""
        return translate(self.caption)

    @property
    def translated_words(self) -> tuple[int, ...]:
        """Which word of the caption each word of its translation stands for."""
        return translated_words(self.caption)

    @cached_property
    def _order(self) -> list[int]:
        """The objects of the layout in reading order."""
        return sorted(range(self.layout.count[self.row]), key=self.layout.cell[self.row].__getitem__)

    @cached_property
    def objects(self) -> tuple[SceneObject, ...]:
        """The objects, in reading order."""
        layout, i, size = self.layout, self.row, self.image.shape[-1]
        middles, unit = layout.place(layout.cell[i], layout.jitter[i], size), layout.frame(size)[0] / CELL
        objects = []
        for k in self._order:
            (x, y), radius = middles[k].tolist(), drawing.SIZES[SIZES[layout.size[i, k]]] * unit
            box = x - radius, y - radius, x + radius, y + radius
            objects.append(SceneObject(*attributes(layout, i, k), int(layout.cell[i, k]), (x, y), box, layout.grid))
        return tuple(objects)

    @cached_property
    def relation(self) -> tuple[int, str, int]:
        """What the caption says: subject, predicate, object."""
        subject, other = (self._order.index(k) for k in self.layout.mentioned[self.row])
        return subject, RELATIONS[self.layout.relation[self.row]], other

    @property
    def stated(self) -> str:
        """The relation that the caption states first."""
        return self.relation[1]

    @property
    def relations(self) -> tuple[tuple[int, str, int], ...]:
        """All that the caption says."""
        return (self.relation,)

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """Which characters of the caption name which object."""
        starts = self.caption.index(self._names[0]), self.caption.rindex(self._names[1])
        numbers = self.relation[0], self.relation[2]
        return tuple(Link(at, at + len(name), k) for at, name, k in zip(starts, self._names, numbers))

    def boxes_of(self, link: Link) -> list[int]:
        """Which of the ``boxes`` a link means: that of its object."""
        return [link.object]

    @cached_property
    def boxes(self) -> Float[Tensor, "objects 4"]:
        """Left, top, right and bottom edge of each object, in pixels."""
        return torch.tensor([item.box for item in self.objects])

    @property
    def names(self) -> tuple[str, ...]:
        """What is in each of the ``boxes``: its shape, one of ``known``."""
        return tuple(item.shape for item in self.objects)

    @cached_property
    def masks(self) -> Bool[Tensor, "objects size size"]:
        """Which pixels each object covers by at least half."""
        (layout, i), size = (self.layout, self.row), self.image.shape[-1]
        side, _ = layout.frame(size)
        masks = torch.zeros(len(self._order), size, size, dtype=torch.bool)
        for mask, k in zip(masks, self._order):
            cover = drawing.sprites(side)[layout.shape[i, k], layout.size[i, k], *layout.jitter[i, k]]
            mask[self._cell(int(layout.cell[i, k]))] = torch.from_numpy(cover >= 0.5)
        return masks

    @cached_property
    def free(self) -> Bool[Tensor, "size size"]:
        """The first cell on which nothing stands."""
        taken = {item.cell for item in self.objects}
        mask = torch.zeros(self.image.shape[1:], dtype=torch.bool)
        mask[self._cell(next(k for k in range(self.layout.grid**2) if k not in taken))] = True
        return mask

    def _cell(self, number: int) -> tuple[slice, slice]:
        """The rows and columns of pixels of a cell."""
        side, edge = self.layout.frame(self.image.shape[-1])
        return tuple(slice(edge + k * side, edge + (k + 1) * side) for k in divmod(number, self.layout.grid))

    @cached_property
    def graph(self) -> tuple[tuple[int, str, int], ...]:
        """Every true (subject, predicate, object), by columns and rows of the grid; objects are the nodes."""
        edges, places = [], [(item.row, item.column) for item in self.objects]
        for i, (row, column) in enumerate(places):
            for j, (other_row, other_column) in enumerate(places):
                if column != other_column:
                    edges.append((i, "left of" if column < other_column else "right of", j))
                if row != other_row:
                    edges.append((i, "above" if row < other_row else "below", j))
        return tuple(edges)

    @cached_property
    def question(self) -> Question:
        """One question about the picture, with its kind and its answer."""
        return ask(self.objects, self.graph, int(self.layout.question_bits[self.row]))


def draw_samples(layout: Layout, size: int, covered: Bool[np.ndarray, "n cells"] | None = None) -> list[SceneSample]:
    """The scenes of a layout, with the ``covered`` ones of their 16 cells in grey."""
    images = draw(layout, size)
    if covered is not None:
        cells = covered.reshape(-1, 1, GRID, GRID).repeat(size // GRID, 2).repeat(size // GRID, 3)
        images = np.where(cells, np.float32(0.5), images)
    return [SceneSample(image, layout, i) for i, image in enumerate(torch.from_numpy(images))]


def attributes(layout: Layout, i: int, k: int) -> tuple[str, str, str, str]:
    """Size, texture, colour and shape of object k of scene i."""
    size, texture = SIZES[layout.size[i, k]], TEXTURES[layout.texture[i, k]]
    return size, texture, COLOURS[layout.colour[i, k]], SHAPES[layout.shape[i, k]]


class Scenes(Rendered):
    """Scenes with eight or nine objects, or with ``objects`` of them that are all different.

    Raises ``ValueError`` as :class:`Rendered` does, and for fewer than 2 or more than 9 objects.
    """

    name, splits = "scenes", SPLITS
    disk = "none: drawn on the fly"
    shows = "8 or 9 shapes on a grid, of which the caption names two; masks, boxes, links, graph, questions"

    def __init__(
        self,
        split: str = "train",
        *,
        size: int = 64,
        seed: int = 0,
        length: int = 1_000_000,
        objects: int | None = None,
    ):
        super().__init__(split, size=size, seed=seed, length=length)
        if objects is not None and not 2 <= objects <= OBJECTS:
            raise ValueError(f"A scene has 2 to {OBJECTS} objects, got {objects}.")
        self.objects = objects

    def _render(self, index: np.ndarray) -> list[SceneSample]:
        return draw_samples(lay_out(self.split, index, self.seed, self.objects), self.size)
