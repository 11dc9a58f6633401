"""``scenes`` and ``crowded-scenes``: pictures about which everything is known, so that alignment can be checked.

What stands where is decided by :mod:`~mmlearn.data.synthetic.layouts`, and drawn here. Scene i of a split is a function
of (split, i, seed, objects) and nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from mmlearn.data.synthetic import drawing, layouts
from mmlearn.data.synthetic.dataset import Rendered
from mmlearn.data.synthetic.drawing import GRID
from mmlearn.data.synthetic.layouts import CELL, RELATIONS, SHAPES, SPLITS, VALUES, Layout
from mmlearn.data.synthetic.questions import Question, ask
from mmlearn.data.synthetic.scene_facts import Fact, Thing, stated_facts

CORNERS = ("upper left", "upper right", "lower left", "lower right")  # where a single object is
NO_IMAGE = torch.empty(3, 0, 0)


def covers(layout: Layout, scene: np.ndarray, k: np.ndarray | int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """How much of each pixel of its cell object k of each scene covers, and that times how bright it is there."""
    at, unit = (scene, k), side / CELL
    if layout.boxes is None:
        where = layout.size[at], *np.moveaxis(layout.jitter[at], -1, 0)
        cover, paint = drawing.cell_sprites(side)
        return cover[layout.shape[at], *where], paint[layout.shape[at], layout.texture[at], *where]
    cover, shape = np.empty((len(scene), side, side), np.float32), layout.shape[at]
    for each in np.unique(shape):
        cover[shape == each] = drawing.stretched(SHAPES[each], layout.boxes[at][shape == each] * unit, side)
    return cover, cover


def draw(layout: Layout, size: int) -> Float[np.ndarray, "n 3 size size"]:
    """The pictures of a layout, float32 in [0, 1]."""
    images = drawing.grounds(size)[layout.ground]
    side, edge = layout.frame(size)
    for k in range(layout.cell.shape[1]):
        scene = np.flatnonzero(k < layout.count)
        row, column = np.divmod(layout.cell[scene, k], layout.grid)
        at = scene, edge + side * row, edge + side * column
        drawing.paste(images, at, *covers(layout, scene, k, side), layout.colour[scene, k])
    return images


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


@dataclass(frozen=True, repr=False)
class SceneSample:
    """A scene and all that is known about it, computed when it is asked for.

    ``image`` is float32 (3, size, size) in [0, 1].
    """

    image: Float[Tensor, "3 size size"]
    layout: Layout
    row: int  # of the layout

    @cached_property
    def _said(self) -> tuple[str, tuple[Link, ...], tuple[tuple[int, str, int], ...]]:
        """The caption, its links, and what it says."""
        layout, i = self.layout, self.row
        if layout.mentioned.shape[1] == 1:
            name = self._name(0)
            return f"a {name} at the {CORNERS[layout.cell[i, 0]]}", (Link(2, 2 + len(name), 0),), ()
        caption, links, relations, at = "", [], [], 0
        clauses = layout.mentioned.shape[1:] if layout.plan is None else layouts.PLANS[layout.plan[i]]
        for clause, count in enumerate(clauses):
            things = layout.mentioned[i, at : at + count].tolist()
            names = [self._name(k) for k in things]
            how = [RELATIONS[k] for k in layout.relation[i, at : at + count - 1]]
            form, start = layout.template[i, clause], len(caption) + 2 * bool(caption)
            caption += "; " * bool(caption) + layouts.TEMPLATES[form].format(names[0], how[0], names[1])
            caption += "".join(layouts.MORE[form].format(None, *more) for more in zip(how[1:], names[2:]))
            numbers = [self._order.index(k) for k in things]
            for name, number in zip(names, numbers):
                start = caption.index(name, start)
                links.append(Link(start, start + len(name), number))
                start += len(name)
            relations += [(numbers[0], relation, number) for relation, number in zip(how, numbers[1:])]
            at += count
        return caption, tuple(links), tuple(relations)

    def _name(self, k: int) -> str:
        """What captions call object k of the layout."""
        return " ".join(VALUES[name][getattr(self.layout, name)[self.row, k]] for name in self.layout.named)

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

    @property
    def stated(self) -> str:
        """The relation that the caption states first."""
        return self.relation[1]

    @property
    def translation(self) -> str:
        """The caption in a second language, in which each word is spelt backwards, and words come in reverse order.

        "a red star above a blue bar" is "rab eulb a evoba rats der a". So systems that learn several languages can be
        checked without a translator. One word, "a", is the same in both, as names and numbers are in real ones.
        Source of the idea: K et al. 2020, "Cross-Lingual Ability of Multilingual BERT", Fake-English.
        """
        return translate(self.caption)

    @property
    def translated_words(self) -> tuple[int, ...]:
        """For each word of the translation the number of the word of the caption that it stands for."""
        return tuple(reversed(range(len(self.caption.split()))))

    @cached_property
    def _order(self) -> list[int]:
        """The objects of the layout in reading order."""
        return sorted(range(self.layout.count[self.row]), key=self.layout.cell[self.row].__getitem__)

    @cached_property
    def objects(self) -> tuple[SceneObject, ...]:
        """The objects, in reading order."""
        layout, i, size = self.layout, self.row, self.image.shape[-1]
        middles, extents = layout.middles(i, size).tolist(), layout.extents(i, size).tolist()
        objects = []
        for k in self._order:
            (x, y), (across, down), cell = middles[k], extents[k], int(layout.cell[i, k])
            box = x - across, y - down, x + across, y + down
            objects.append(SceneObject(*attributes(layout, i, k), cell, (x, y), box, layout.grid))
        return tuple(objects)

    def boxes_of(self, link: Link) -> list[int]:
        """Which of the ``boxes`` a link means: that of its object."""
        return [link.object]

    def mask_of(self, link: Link) -> Bool[Tensor, "size size"]:
        """Which pixels a link means."""
        return self.masks[link.object]

    def grounded_position(self, link: Link) -> tuple[int, int]:
        """Where the colour of a link is in the caption: the word that only the picture can tell."""
        colour = self.objects[link.object].colour
        start = self.caption.index(colour, link.start)
        return start, start + len(colour)

    def region_cells(self, side: int) -> Float[Tensor, "objects cells"]:
        """1 in the cell of each object, of a grid of ``side`` × ``side``."""
        return F.one_hot(torch.tensor([item.cell for item in self.objects]), side**2).float()

    def stated_facts(self, text: str) -> set[Fact]:
        """What a text says of this scene, true or not."""
        return stated_facts(text)

    def meant(self, thing: Thing) -> list[int]:
        """The objects that have all these attributes."""
        return [number for number, item in enumerate(self.objects) if thing <= set(item.name.split())]

    @cached_property
    def boxes(self) -> Float[Tensor, "objects 4"]:
        """Left, top, right and bottom edge of each object, in pixels."""
        return torch.tensor([item.box for item in self.objects])

    @property
    def known(self) -> tuple[str, ...]:
        """All names that there are."""
        return self.layout.classes or SHAPES

    @property
    def names(self) -> tuple[str, ...]:
        """What is in each of the ``boxes``, one of ``known``: its shape, or its colour and its shape."""
        return tuple(f"{one.colour} {one.shape}" if self.layout.classes else one.shape for one in self.objects)

    @cached_property
    def masks(self) -> Bool[Tensor, "objects size size"]:
        """Which pixels each object covers by at least half."""
        layout, order, size = self.layout, np.array(self._order), self.image.shape[-1]
        cover, _ = covers(layout, np.full(len(order), self.row), order, layout.frame(size)[0])
        masks = torch.zeros(len(order), size, size, dtype=torch.bool)
        for mask, item, part in zip(masks, self.objects, cover):
            mask[self._cell(item.cell)] = torch.from_numpy(part >= 0.5)
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
        edges = []
        for (i, one), (j, other) in product(enumerate(self.objects), repeat=2):
            if one.column != other.column:
                edges.append((i, "left of" if one.column < other.column else "right of", j))
            if one.row != other.row:
                edges.append((i, "above" if one.row < other.row else "below", j))
        return tuple(edges)

    @cached_property
    def question(self) -> Question:
        """One question about the picture, with its kind and its answer."""
        return ask(self.objects, self.graph, int(self.layout.question_bits[self.row]), self.layout.asked)


def translate(caption: str) -> str:
    """A caption in the second language. To translate twice changes nothing but white space."""
    return " ".join(word[::-1] for word in reversed(caption.split()))


def attributes(layout: Layout, i: int, k: int) -> tuple[str, ...]:
    """Size, texture, colour and shape of object k of scene i."""
    return tuple(VALUES[name][getattr(layout, name)[i, k]] for name in layouts.ATTRIBUTES)


def draw_samples(layout: Layout, size: int, covered: Bool[np.ndarray, "n cells"] | None = None) -> list[SceneSample]:
    """The scenes of a layout, with the ``covered`` ones of their cells in grey."""
    images = draw(layout, size)
    if covered is not None:
        grid, (side, _) = layout.grid, layout.frame(size)
        cells = covered.reshape(-1, 1, grid, grid).repeat(side, 2).repeat(side, 3)
        images = np.where(cells, np.float32(0.5), images)
    return [SceneSample(image, layout, i) for i, image in enumerate(torch.from_numpy(images))]


class Scenes(Rendered):
    """Scenes with eight or nine objects, or with ``objects`` of them that are all different.

    Raises ``ValueError`` as :class:`Rendered` does, and for fewer than 2 or more than 9 objects.
    """

    name, splits, epoch = "scenes", SPLITS, 1_000_000
    disk = "none: drawn on the fly"
    shows = "8 or 9 shapes on a grid, of which the caption names two; masks, boxes, links, graph, questions"
    lay_out: ClassVar[Callable[..., Layout]] = staticmethod(layouts.scene_layout)
    fewest, most = 2, layouts.OBJECTS

    def __init__(self, split: str = "train", *, size: int = 64, objects: int | None = None, **options: Any):
        super().__init__(split, size=size, **options)
        if objects is not None and not self.fewest <= objects <= self.most:
            raise ValueError(f"{self.name} has {self.fewest} to {self.most} objects, got {objects}.")
        self.objects = objects

    def layout(self, index: np.ndarray) -> Layout:
        """What stands where in the scenes with these numbers."""
        return self.lay_out(self.split, index, self.seed, self.objects)

    def _make(self, index: np.ndarray) -> list[Any]:
        return draw_samples(self.layout(index), self.size)


class CrowdedScenes(Scenes):
    """Scenes with 16 to 32 objects, or with ``objects`` of them, and with captions of two to four clauses.

    The objects, their attributes and their words are those of ``scenes``; they stand on a 7 × 7 grid, so that at 224
    pixels a cell is 32 × 32. Fewer than 24 ``objects`` have shorter captions: a third of them at most is mentioned.
    Raises ``ValueError`` as :class:`Rendered` does, and for fewer than 16 or more than 32 objects.
    """

    name, smallest = "crowded-scenes", 28
    shows = (
        "16 to 32 shapes on a finer grid, of which a long caption names four to eight; else as scenes, for 224 pixels"
    )
    lay_out = staticmethod(layouts.crowded_layout)
    fewest, most = layouts.FEWEST, layouts.MOST

    def __init__(self, split: str = "train", *, size: int = 224, **options: Any):
        super().__init__(split, size=size, **options)


class NamedOnce(CrowdedScenes):
    """Crowded scenes of which no two objects share size, texture and shape, for questions about a hidden colour."""

    lay_out = staticmethod(layouts.named_once_layout)


class SmallScenes(Scenes):
    """Scenes of two objects on a 2 × 2 grid, or of one, for systems that draw; the caption says everything."""

    name, smallest = "small-scenes", 16
    lay_out = staticmethod(layouts.small_layout)
    fewest, most = 1, 2

    def __init__(self, split: str = "train", *, size: int = 24, objects: int = 2, **options: Any):
        super().__init__(split, size=size, objects=objects, **options)
