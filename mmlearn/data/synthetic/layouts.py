"""One specification of a scene: what stands where on a grid, and what its caption says of it, before it is drawn.

Row i of a layout is a function of (split, i, seed) and of the options. All layouts have the same four splits:
``train``, ``val`` and ``test`` never contain the twelve colour–shape pairs of ``HELD_OUT``; in ``composition`` the
caption mentions one of them. Each split has its own grounds, so that a picture of one cannot occur in another.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from mmlearn.data.hashing import stream, uniform
from mmlearn.data.synthetic import drawing
from mmlearn.data.synthetic.drawing import CANVAS, GRID, JITTER

SPLITS = ("train", "val", "test", "composition")
COLOURS, SHAPES = tuple(drawing.COLOURS), tuple(drawing.SHAPES)
SIZES, TEXTURES = tuple(drawing.SIZES), tuple(drawing.TEXTURES)
RADII = np.array(list(drawing.SIZES.values()))
ATTRIBUTES = ("size", "texture", "colour", "shape")
VALUES = dict(zip(ATTRIBUTES, (SIZES, TEXTURES, COLOURS, SHAPES)))
RELATIONS = ("left of", "right of", "above", "below")
CELL = CANVAS // GRID  # the side of a cell in the units of SIZES and JITTER, whatever the grid
OBJECTS = 9  # of a scene at most; every other scene has one less
FEWEST, MOST = 16, 32  # objects of a crowded scene
MENTIONS = 8  # of a crowded scene at most
# How many objects each clause of a crowded scene's caption mentions, the shortest captions first.
PLANS = ((2, 2), (3, 2), (3, 3), (2, 2, 2), (3, 2, 2), (3, 3, 2), (2, 2, 2, 2))
TEMPLATES = ("a {0} {1} a {2}", "the {0} is {1} the {2}")
MORE = (" and {1} a {2}", " and {1} the {2}")  # what follows on a clause of TEMPLATES that mentions a third object
# Each colour and each shape is in exactly one pair, so every part is known and only the combination is new.
HELD_OUT = tuple((colour, (5 * colour + 1) % len(SHAPES)) for colour in range(len(COLOURS)))
UNSEEN_SHAPE = np.array([shape for _, shape in HELD_OUT])  # of each colour
UNSEEN_COLOUR = UNSEEN_SHAPE.argsort()  # of each shape


@dataclass(frozen=True)
class Layout:
    """n scenes of up to k objects, of which the caption mentions m, clause by clause."""

    colour: np.ndarray  # (n, k)
    shape: np.ndarray  # (n, k)
    size: np.ndarray  # (n, k)
    texture: np.ndarray  # (n, k)
    cell: np.ndarray  # (n, k), in reading order
    jitter: np.ndarray  # (n, k, 2), x and y, from 0 to twice JITTER
    count: np.ndarray  # (n,), how many of the objects are there
    mentioned: np.ndarray  # (n, m), objects in the caption's order
    relation: np.ndarray  # (n, m - 1), how the first of its clause stands to each mention but the very first
    template: np.ndarray  # (n, clauses)
    ground: np.ndarray  # (n,)
    question_bits: np.ndarray  # (n,)
    plan: np.ndarray | None = None  # (n,), which of PLANS the caption has; without it all mentions are one clause
    boxes: np.ndarray | None = None  # (n, k, 4), middle in the cell and half of width and height, for stretched objects
    grid: int = GRID  # rows and columns
    named: tuple[str, ...] = ATTRIBUTES  # what captions say of an object
    asked: tuple[str, ...] = ()  # kinds of questions; all where it is empty
    classes: tuple[str, ...] = ()  # what a detector tells apart, where it is not shapes alone

    def arrays(self) -> dict[str, np.ndarray]:
        """All that has a row for each scene."""
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    def part(self, chosen: np.ndarray) -> Self:
        """These scenes."""
        return replace(self, **{name: value[chosen] for name, value in self.arrays().items()})

    def objects(self, chosen: np.ndarray | slice) -> Self:
        """These objects of each scene, (n, k) or the same of all."""
        at = (slice(None) if isinstance(chosen, slice) else np.arange(len(self.count))[:, None]), chosen
        names = [name for name in (*ATTRIBUTES, "cell", "jitter", "boxes") if getattr(self, name) is not None]
        return replace(self, **{name: getattr(self, name)[at] for name in names})

    def key(self, row: int) -> np.uint64:
        """A 64-bit number made of all that a row says: what stands where, and what is said of it."""
        return stream("scene", *(int(x) for part in self.arrays().values() for x in np.ravel(part[row])))

    def reading_order(self) -> np.ndarray:
        """The numbers of the objects from left to right and from top to bottom, (n, k); those that are absent last."""
        absent = np.arange(self.cell.shape[1]) >= self.count[:, None]
        return np.where(absent, self.grid**2, self.cell).argsort(1, kind="stable")

    def frame(self, size: int) -> tuple[int, int]:
        """The side of a cell in a picture of ``size`` pixels, and how far the grid is from the picture's edge."""
        side = size // self.grid
        return side, (size - self.grid * side) // 2

    def middles(self, at: int | slice, size: int) -> np.ndarray:
        """Where the middle of each object is in a picture of ``size`` pixels, (..., 2): x and y."""
        side, edge = self.frame(size)
        column_row = np.stack([self.cell[at] % self.grid, self.cell[at] // self.grid], -1)
        if self.boxes is None:
            return edge + ((column_row + 0.5) * CELL + self.jitter[at] - JITTER) * (side / CELL)
        return edge + (column_row * CELL + self.boxes[at][..., :2]) * (side / CELL)

    def extents(self, at: int | slice, size: int) -> np.ndarray:
        """Half of the width and of the height of each object in a picture of ``size`` pixels, (..., 2)."""
        half = RADII[self.size[at]][..., None].repeat(2, -1) if self.boxes is None else self.boxes[at][..., 2:]
        return half * (self.frame(size)[0] / CELL)


def relate(subject: np.ndarray, other: np.ndarray, grid: int, axis: np.ndarray) -> np.ndarray:
    """How the subject's cell stands to the other's, as a number of ``RELATIONS``.

    Where both columns and rows differ, ``axis`` below 0.5 says it of the columns.
    """
    rows_apart, columns_apart = subject // grid - other // grid, subject % grid - other % grid
    across = (columns_apart != 0) & ((rows_apart == 0) | (axis < 0.5))
    return np.where(across, columns_apart > 0, 2 + (rows_apart > 0))


def _best(key: np.ndarray, *forbidden: np.ndarray) -> np.ndarray:
    """For each row of keys the shape with the highest, without the forbidden ones."""
    key, rows = key.copy(), np.arange(len(key))
    for shape in forbidden:
        key[rows, shape] = -1
    return key.argmax(1)


# Scenes of up to nine objects on a 4 × 4 grid.


def scene_layout(split: str, index: np.ndarray, seed: int, objects: int | None = None) -> Layout:
    """Eight or nine objects, two of them mentioned: a conjunction search.

    Each mentioned object shares its colour with one other object and its shape with another, so neither word alone
    finds it, and both together do. The other objects have a third colour or a third shape. With ``objects`` there are
    so many instead, and no two have the same colour or the same shape.
    Source: Treisman & Gelade 1980, "A Feature-Integration Theory of Attention", experiment I.
    """
    widths = len(COLOURS), len(SHAPES), GRID**2, OBJECTS, OBJECTS, 2 * OBJECTS, 6
    numbers = uniform(stream("scenes", split, seed), index, sum(widths))
    colour, shape, cell, size, texture, jitter, rest = np.split(numbers, np.cumsum(widths)[:-1], axis=1)
    count, swap, axis, template, ground, question = rest.T
    choose = _search if objects is None else _all_different
    colour, shape = choose(colour, shape, composition=split == "composition")
    cell = cell.argsort(1)[:, :OBJECTS]
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
        relation=relate(*np.take_along_axis(cell, mentioned, 1).T, GRID, axis)[:, None],
        template=(template * len(TEMPLATES)).astype(int)[:, None],
        ground=drawing.grounds_of(split, SPLITS, ground),
        question_bits=(question * 2**24).astype(int),
    )


def _search(colour_key: np.ndarray, shape_key: np.ndarray, composition: bool) -> tuple[np.ndarray, np.ndarray]:
    """Colour and shape of nine objects for each row of random numbers, (n, 12) each; the first two are mentioned."""
    colours = colour_key.argsort(1)[:, :3]  # of the two mentioned objects, and of the crowd
    unseen = UNSEEN_SHAPE[colours]
    one, two, crowd = 0, 1, 2
    first = unseen[:, one] if composition else _best(shape_key, unseen[:, one], unseen[:, crowd])
    second = _best(shape_key, unseen[:, two], unseen[:, crowd], first)
    shapes = np.stack([first, second, _best(shape_key, *unseen.T, first, second)], 1)
    return (
        colours[:, [one, two, one, two, crowd, crowd, crowd, crowd, crowd]],
        shapes[:, [one, two, crowd, crowd, one, two, crowd, crowd, crowd]],
    )


def _all_different(colour_key: np.ndarray, shape_key: np.ndarray, composition: bool) -> tuple[np.ndarray, np.ndarray]:
    """The same for nine objects that share neither colours nor shapes."""
    colours = colour_key.argsort(1)[:, :OBJECTS]
    unseen = UNSEEN_SHAPE[colours]
    shapes = [unseen[:, 0]] if composition else []
    while len(shapes) < OBJECTS:
        shapes.append(_best(shape_key, unseen[:, len(shapes)], *shapes))
    return colours, np.stack(shapes, 1)


# Crowded scenes on a 7 × 7 grid.


def crowded_layout(split: str, index: np.ndarray, seed: int, objects: int | None = None) -> Layout:
    """16 to 32 objects, or so many ``objects``, of which four to eight are mentioned in two to four clauses.

    A mentioned object has a twin of the same colour and shape, so that only size or texture tells them apart; one more
    object at least has its colour and another shape, and another has its shape and another colour. No name fits two
    objects. In ``composition`` one of the mentioned objects, and its twin, are a held-out pair.
    """
    grid, widths = 7, (len(COLOURS), len(SHAPES), 7**2, MOST, 2 * MOST, MENTIONS, 4, 5)
    numbers = uniform(stream("crowded-scenes", split, seed), index, sum(widths))
    colour, shape, cell, style, jitter, axis, template, rest = np.split(numbers, np.cumsum(widths)[:-1], axis=1)
    plan, count, first, ground, question = rest.T

    sizes = np.array([sum(plan) for plan in PLANS])
    plan = (plan * sum(3 * sizes <= (objects or MOST))).astype(int)  # each mention has three objects of its own
    mentions = sizes[plan]
    fewest = np.maximum(FEWEST, 3 * mentions)
    count = fewest + (count * (MOST + 1 - fewest)).astype(int) if objects is None else np.full(len(index), objects)
    colour, shape = _crowd(colour, shape, mentions, composition=split == "composition")
    style = _styles(style, mentions)
    # Whichever of the mentioned objects comes first: object 0 is the one that is new in composition.
    mentioned = (np.arange(MENTIONS) + (first * mentions).astype(int)[:, None]) % mentions[:, None]
    cell = cell.argsort(1)[:, :MOST]
    cells = np.take_along_axis(cell, mentioned, 1)
    # For each mention the first one of its clause.
    subjects = [np.repeat(np.cumsum([0, *each[:-1]]), each) for each in PLANS]
    subjects = np.array([[*each, *[0] * (MENTIONS - len(each))] for each in subjects])[plan]
    return Layout(
        colour=colour,
        shape=shape,
        size=style // len(TEXTURES),
        texture=style % len(TEXTURES),
        cell=cell,
        jitter=(jitter * (2 * JITTER + 1)).astype(int).reshape(-1, MOST, 2),
        count=count,
        mentioned=mentioned,
        relation=relate(np.take_along_axis(cells, subjects, 1), cells, grid, axis)[:, 1:],
        template=(template * len(TEMPLATES)).astype(int),
        ground=drawing.grounds_of(split, SPLITS, ground),
        question_bits=(question * 2**24).astype(int),
        plan=plan,
        grid=grid,
    )


def _crowd(
    colour_key: np.ndarray, shape_key: np.ndarray, mentions: np.ndarray, composition: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Colour and shape of 32 objects for each row of random numbers, (n, 12) each.

    With m mentions, objects 0 to m - 1 are mentioned and m to 2m - 1 are their twins. Object k beyond has the colour of
    mention k mod m; of the first m of them the shape is the next mention's, of all others one further along.
    """
    k, m, rows = np.arange(MOST), mentions[:, None], np.arange(len(mentions))[:, None]
    own, step, palette = k % m, np.maximum(k // m - 1, 0), 8  # shapes of a scene, and one to stand in for an unseen one
    colour, shapes = colour_key.argsort(1)[rows, own], shape_key.argsort(1)
    shape = shapes[rows, np.where(step == 1, (own + 1) % m, (own + step) % palette)]
    unseen = UNSEEN_SHAPE[colour]
    shape = np.where(shape == unseen, shapes[:, palette, None], shape)
    if composition:
        shape = np.where((own == 0) & (step == 0), unseen, shape)
    return colour, shape


def _styles(key: np.ndarray, mentions: np.ndarray) -> np.ndarray:
    """Size and texture of 32 objects as one number each: a twin's is another than that of its mention."""
    styles, k, m = len(SIZES) * len(TEXTURES), np.arange(MOST), mentions[:, None]
    style = (key * styles).astype(int)
    other = (np.take_along_axis(style, np.broadcast_to(k % m, style.shape), 1) + 1 + key * (styles - 1)).astype(int)
    return np.where((k >= m) & (k < 2 * m), other % styles, style)


def named_once_layout(split: str, index: np.ndarray, seed: int, objects: int | None = None) -> Layout:
    """A crowded layout with other objects: no two are alike in size, texture and shape, and colours are drawn apart.

    So "a small solid <mask> heart" means one object, and neither the rest of the caption nor any other object tells its
    colour: for as many as 32 objects it asks what ``scene_layout(objects=n)`` asks for up to nine.
    """
    styles = len(SIZES) * len(TEXTURES)
    names = len(SHAPES) * styles
    numbers = uniform(stream("named once", split, seed), index, names + MOST)
    shape, style = np.divmod(numbers[:, :names].argsort(1)[:, :MOST], styles)
    others = 1 + (numbers[:, names:] * (len(COLOURS) - 1)).astype(int)
    if split == "composition":
        others[:, 0] = 0  # object 0 is mentioned
    parts = dict(shape=shape, size=style // len(TEXTURES), texture=style % len(TEXTURES))
    layout = crowded_layout(split, index, seed, objects)
    return replace(layout, colour=(UNSEEN_COLOUR[shape] + others) % len(COLOURS), **parts)


# One or two objects on a 2 × 2 grid, for systems that draw: small pictures, of which the caption says everything.


def small_layout(split: str, index: np.ndarray, seed: int, objects: int = 2) -> Layout:
    """One or two ``objects``, large and solid, which captions name by colour and shape alone. Two share neither.

    "a red circle above a blue star", or, of the first object alone, "a red circle at the upper left". Colours and
    shapes are those of ``scene_layout(objects=2)``. At 24 pixels an object is as large as in a scene of 48.
    """
    grid, layout = 2, scene_layout(split, index, seed, objects=2)
    numbers = uniform(stream("two objects", split, seed), index, grid**2 + 1)
    cell, axis = numbers[:, :-1].argsort(1)[:, :2], numbers[:, -1]
    layout = replace(on_another_grid(layout.objects(slice(2)), cell, grid, axis), named=("colour", "shape"))
    if objects == 2:
        return layout
    alone = dict(count=layout.count - 1, mentioned=np.zeros((len(index), 1), int), relation=layout.relation[:, :0])
    return replace(layout.objects(slice(1)), **alone)


def on_another_grid(layout: Layout, cell: np.ndarray, grid: int, axis: np.ndarray) -> Layout:
    """The same objects, but large and solid, in these cells, (n, k), of a grid of so many rows and columns."""
    style = dict(size=np.full(cell.shape, SIZES.index("large")), texture=np.full(cell.shape, TEXTURES.index("solid")))
    relation = relate(*np.take_along_axis(cell, layout.mentioned, 1).T, grid, axis)[:, None]
    return replace(layout, cell=cell, relation=relation, grid=grid, **style)


def layout_with_n_classes(split: str, count: int, n: int, seed: int) -> Layout:
    """``count`` small layouts of n colours and n shapes, for networks that must learn them in a minute.

    Only every third colour and shape is used (or every second, …), the two objects differ in both, and questions are
    about the colour or the shape in a cell. With fewer than twelve classes nothing is held out of ``train``, because
    several pairs of colour and shape become one. ``ValueError`` for an n that does not divide the twelve, or for one.
    """
    step = _step_of(n)
    layout = small_layout(split, np.arange(4 * count + 400), seed)
    layout = replace(layout, colour=layout.colour // step * step, shape=layout.shape // step * step)
    differ = (layout.colour[:, 0] != layout.colour[:, 1]) & (layout.shape[:, 0] != layout.shape[:, 1])
    return replace(layout.part(np.flatnonzero(differ)[:count]), asked=("colour", "shape"))


def layout_with_boxes(split: str, count: int, n: int, seed: int) -> Layout:
    """:func:`layout_with_n_classes` whose objects have a width, a height and a position in their cells of their own.

    They are two fifths to all of their cell wide, and high; who knows the cell of an object does not know its box.
    """
    numbers = np.random.default_rng([seed, SPLITS.index(split)]).random((2, count, 2, 2))
    radius = CELL / 2 * (0.4 + 0.6 * np.sin(np.pi / 2 * numbers[0]) ** 2)  # rather small or large than between
    middle = CELL / 2 + (2 * numbers[1] - 1) * (CELL / 2 - radius)
    layout = layout_with_n_classes(split, count, n, seed)
    return replace(layout, boxes=np.concatenate([middle, radius], -1), classes=class_names(n))


def class_names(n: int) -> tuple[str, ...]:
    """Each of n colours with each of n shapes. ``ValueError`` as in :func:`layout_with_n_classes`."""
    step = _step_of(n)
    return tuple(f"{colour} {shape}" for colour in COLOURS[::step] for shape in SHAPES[::step])


def _step_of(n: int) -> int:
    """Every which colour and shape is used."""
    if n < 2 or len(COLOURS) % n:
        raise ValueError(f"Of twelve colours and shapes 2, 3, 4, 6 or 12 are used as classes; got {n}.")
    return len(COLOURS) // n
