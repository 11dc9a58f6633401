"""``collages``: light pictures composed of real, named cut-outs, about which everything is known.

Four to eight things of one style stand on soft paper. The caption names two or three of them, with their colours where
they are dyed, how many they are, and how they stand: "a plane below a green umbrella and a purple shirt". Boxes, masks,
names, links, true relations and a question come with each. Collage i of a split is a function of (split, i, seed).

What is held out: two styles of drawings (``unseen-style``), line art (``line-art``), photographs (``photographs``), and
one pair of nouns in eight, which no caption of the other splits names together (``unseen-pairs``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, permutations
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmlearn.data.boxes import cells_in_boxes
from mmlearn.data.hashing import stream
from mmlearn.data.packaged.emoji import FLUENT, KNOWN, OPENMOJI
from mmlearn.data.synthetic.collage_words import ANSWERS, ask, describe, held_out_pair, relation, stated_facts
from mmlearn.data.synthetic.cutouts import (
    COLOURS,
    DYED,
    NOUNS,
    PAPERS,
    PHOTOGRAPHS,
    Sprite,
    cutout,
    noun_names,
    nouns_of,
    papers,
    sprite,
    tinted_papers,
    variants,
)
from mmlearn.data.synthetic.dataset import Rendered
from mmlearn.data.synthetic.questions import Question
from mmlearn.data.synthetic.scene_facts import Fact
from mmlearn.data.synthetic.scenes import Link
from mmlearn.suggestions import suggest

MOST, FEWEST = 8, 4  # things
AREA = 0.45  # of the picture that things fill, about
POOL = 4096  # pictures whose frozen features are kept
CHUNK = 256  # of them are computed at a time


@dataclass(frozen=True)
class Thing:
    """One cut-out: what it is, and where. ``centre`` and ``side``, its longer edge, are shares of the picture's."""

    noun: str
    style: str
    colour: str | None  # of COLOURS, where the noun is dyed
    centre: tuple[float, float]
    side: float
    mirrored: bool
    variant: int = 0

    @property
    def name(self) -> str:
        return f"{self.colour} {self.noun}" if self.colour else self.noun

    def sprite(self, size: int) -> Sprite:
        """Its pixels in a picture of this size."""
        return sprite(self.noun, self.style, self.colour, self.variant, max(8, 2 * round(self.side * size / 2)))

    def corner(self, size: int) -> tuple[int, int]:
        """Left and top edge in pixels."""
        height, width = self.sprite(size).cover.shape
        return round(self.centre[0] * size - width / 2), round(self.centre[1] * size - height / 2)


@dataclass(frozen=True, repr=False, eq=False)
class CollageSample:
    """A collage and all that is known about it, computed when it is asked for.

    ``things`` are in the order in which they were laid down, the largest first; boxes, names and masks follow it.
    """

    size: int  # of the picture, in pixels
    things: tuple[Thing, ...]
    caption: str
    links: tuple[Link, ...]  # caption[start:end] names things[object] and all that are called the same
    paper: int
    bits: int  # which pick the question
    grid: Float[Tensor, "positions 96"] | None = None  # frozen features, where the data set was asked for them

    @cached_property
    def image(self) -> Float[Tensor, "3 size size"]:
        """The picture, from 0 to 1."""
        return draw([(self.things, self.paper)], self.size)[0]

    def retold(self, seed: int, *, unseen_pairs: bool = False) -> "CollageSample":
        """The same picture with another caption."""
        caption, links = describe(self.things, np.random.default_rng(seed), unseen_pairs)
        return replace(self, caption=caption, links=links)

    def drawn(self, size: int) -> "CollageSample":
        """The same collage, drawn at another size."""
        return replace(self, size=size, grid=None)

    def boxes_of(self, link: Link) -> list[int]:
        """Which things a link names: more than one where the caption says two."""
        name = self.things[link.object].name
        return [number for number, thing in enumerate(self.things) if thing.name == name]

    def mask_of(self, link: Link) -> Bool[Tensor, "size size"]:
        """Which pixels a link means: those of all things that it names."""
        return self.masks[self.boxes_of(link)].any(0)

    def grounded_position(self, link: Link) -> tuple[int, int]:
        """Where the noun of a link is in the caption: the word that only the picture can tell."""
        colour = f"{self.things[link.object].colour} "
        return link.start + len(colour) * self.caption.startswith(colour, link.start), link.end

    def nearest(self, point: tuple[float, float]) -> int:
        """The number of the thing whose centre is nearest to this point, in shares of the picture's sides."""
        return min(range(len(self.things)), key=lambda k: math.dist(self.things[k].centre, point))

    def region_cells(self, side: int) -> Float[Tensor, "things cells"]:
        """See :func:`~mmlearn.data.boxes.cells_in_boxes`."""
        return cells_in_boxes(self.boxes, self.size, side)

    def stated_facts(self, text: str) -> set[Fact]:
        """What a text says of this collage, true or not."""
        return stated_facts(text)

    def meant(self, thing: frozenset[str]) -> list[int]:
        """The things that a text's words may mean: none where it says two, and there is one."""
        words = thing - {"two"}
        found = [number for number, each in enumerate(self.things) if words <= set(each.name.split())]
        return found if len(found) > ("two" in thing) else []

    @cached_property
    def boxes(self) -> Float[Tensor, "things 4"]:
        """Left, top, right and bottom edge of each thing, in pixels."""
        edges = []
        for thing in self.things:
            (left, top), (height, width) = thing.corner(self.size), thing.sprite(self.size).cover.shape
            edges.append((left, top, left + width, top + height))
        return torch.tensor(edges, dtype=torch.float32)

    @property
    def names(self) -> tuple[str, ...]:
        """The noun of each thing, one of ``known``."""
        return tuple(thing.noun for thing in self.things)

    @property
    def known(self) -> tuple[str, ...]:
        """All nouns."""
        return NOUNS

    @cached_property
    def masks(self) -> Bool[Tensor, "things size size"]:
        """Which pixels each thing covers by at least half."""
        masks = torch.zeros(len(self.things), self.size, self.size, dtype=torch.bool)
        for mask, thing in zip(masks, self.things):
            (left, top), cover = thing.corner(self.size), thing.sprite(self.size).cover
            cover = cover[:, ::-1] if thing.mirrored else cover
            mask[top : top + cover.shape[0], left : left + cover.shape[1]] = torch.from_numpy(cover >= 0.5)
        return masks

    @cached_property
    def free(self) -> Bool[Tensor, "size size"]:
        """The paper that no thing covers."""
        return ~self.masks.any(0)

    @cached_property
    def graph(self) -> tuple[tuple[int, str, int], ...]:
        """Every true (subject, predicate, object) that captions could state, of things by their numbers."""
        return tuple(
            (i, relation(self.things[i], self.things[j]), j) for i, j in permutations(range(len(self.things)), 2)
        )

    @cached_property
    def question(self) -> Question:
        """One question about the picture, with its kind (exist, count, colour, relation) and its answer."""
        return ask(self.things, self.bits)


def lay_out(
    rng: np.random.Generator,
    styles: Sequence[str],
    fewest: int = FEWEST,
    most: int = MOST,
    *,
    nouns: Sequence[str] = NOUNS,
    area: float = AREA,
) -> tuple[Thing, ...]:
    """Things of one collage, the largest first, of these nouns: each at the freest of 64 positions."""
    count = int(rng.integers(fewest, most + 1))
    style = styles[rng.integers(len(styles))]
    known = [noun for noun in nouns_of(style) if noun in nouns]
    chosen = list(rng.permutation(known)[:count])
    if count > 2 and rng.random() < 0.3:
        chosen[-1] = chosen[0]  # two of them, or another colour of it
    side = np.sqrt(area / count) * rng.uniform(0.72, 1.28, count)
    things: list[Thing] = []
    taken = np.empty((0, 4))  # centre and half of the extent of each
    for noun, longest in sorted(zip(chosen, side), key=lambda item: -item[1]):
        taken_colours = [thing.colour for thing in things if thing.noun == noun]
        dyed = noun in DYED and style not in PHOTOGRAPHS
        colour = str(rng.choice([each for each in COLOURS if each not in taken_colours])) if dyed else None
        variant = int(rng.integers(variants(noun, style)))
        extent = np.array(cutout(noun, style, colour, variant).size)
        half = longest * extent / extent.max() / 2
        centre = 0.03 + half + rng.random((64, 2)) * (0.94 - 2 * half)
        apart = (abs(centre[:, None] - taken[None, :, :2]) - half - taken[None, :, 2:]).max(-1)  # (64, things)
        freest = int(np.minimum(apart, 0.05).min(1, initial=0.05).argmax())
        things.append(
            Thing(
                str(noun),
                style,
                colour,
                tuple(centre[freest].tolist()),
                float(longest),
                bool(rng.random() < 0.5),
                variant,
            )
        )
        taken = np.vstack([taken, np.r_[centre[freest], half]])
    return tuple(things)


def draw(
    collages: Sequence[tuple[Sequence[Thing], int]], size: int, tints: Sequence[str] = ()
) -> Float[Tensor, "n 3 size size"]:
    """Collages, each its things and the number of its paper, as pictures in [0, 1].

    With ``tints`` papers are those of :func:`~mmlearn.data.synthetic.cutouts.tinted_papers`.
    """
    grounds = tinted_papers(size, tints) if tints else papers(size)
    images = np.empty((len(collages), size, size, 3), np.float32)
    for canvas, (things, paper) in zip(images, collages):
        canvas[:] = grounds[paper]
        for thing in things:
            keep, paint, cover, margin = thing.sprite(size)
            (x, y), (height, width), step = thing.corner(size), cover.shape, -1 if thing.mirrored else 1
            top, left = max(0, margin - y), max(0, margin - x)  # what of the margin lies outside the picture
            at = canvas[y - margin + top : y + height + margin, x - margin + left : x + width + margin]
            part = slice(top, top + at.shape[0]), slice(left, left + at.shape[1])
            at *= keep[:, ::step][part]
            at += paint[:, ::step][part]
    return torch.from_numpy(images).clamp_(0, 1).permute(0, 3, 1, 2).contiguous()


class Collages(Rendered):
    """Collages of a split, ``size`` pixels a side.

    ``train``, ``val`` and ``test`` have the same three styles of drawings; the others are what is held out, see above.
    ``things`` makes all have that many, and ``nouns`` are those that they are chosen from. In another ``language`` than
    English the caption lists what it names, separated by commas. With so many ``pictures`` sample i has picture i
    modulo ``pictures``, and a caption and a question of its own. ``grid`` gives samples the frozen features of their
    pictures (:func:`~mmlearn.data.grid_features.grid_features`), computed once; then there are 4,096 pictures unless
    another number is given. Raises ``ValueError`` as :class:`Rendered` does, for an unknown language or noun, for fewer
    than 2 or more than 8 things, or than there are nouns, and for no pictures.
    """

    name, smallest, epoch, labels = "collages", 32, 100_000, ANSWERS
    splits = ("train", "val", "test", "unseen-pairs", "unseen-style", "line-art", "photographs")
    styles: ClassVar = {"unseen-style": FLUENT, "line-art": OPENMOJI, "photographs": PHOTOGRAPHS}
    shows = "4 to 8 drawings or photographs of 64 things on paper; masks, boxes, links, relations, questions"
    licence = (
        "drawings Apache-2.0, CC-BY-4.0, MIT, Unicode-3.0 (colours changed); line-art CC-BY-SA-4.0; photographs "
        "GPL-2.0-or-later"
    )
    disk = "none: composed on the fly of emoji and stamps"

    def __init__(
        self,
        split: str = "train",
        *,
        size: int = 96,
        things: int | None = None,
        nouns: Sequence[str] = NOUNS,
        language: str = "en",
        pictures: int | None = None,
        grid: bool = False,
        **options: Any,
    ):
        super().__init__(split, size=size, **options)
        if things is not None and not 2 <= things <= MOST:
            raise ValueError(f"{self.name} has 2 to {MOST} things, got {things}.")
        if pictures is not None and pictures < 1:
            raise ValueError(f"pictures must be at least 1, got {pictures}.")
        self.fewest, self.most = (FEWEST, MOST) if things is None else (things, things)
        if strange := [noun for noun in nouns if noun not in NOUNS]:
            raise ValueError(f"{self.name} has no {strange[0]!r}; {suggest(strange[0], NOUNS)}.")
        self.nouns = tuple(nouns)
        self._check_nouns()
        self.grid, self.pictures = grid, pictures or (POOL if grid else None)
        self.language, self.translated = language, None
        self._laid: dict[int, CollageSample] = {}
        self._grids: dict[int, Tensor] = {}
        if language != "en":
            from mmlearn.data.packaged.archives import read_json

            if language not in (known := read_json("emoji", "names.json.gz")):
                raise ValueError(f"{self.name} has no names in {language!r}; {suggest(language, known)}.")
            self.translated = noun_names(language)

    def _check_nouns(self) -> None:
        """``ValueError`` where a style has too few of the nouns, or no two that a caption may name together."""
        for style in self.styles.get(self.split, KNOWN):
            known = [noun for noun in nouns_of(style) if noun in self.nouns]
            if len(known) < self.fewest:
                raise ValueError(
                    f"{self.split} of {self.name} has {len(known)} of these nouns, and a picture shows {self.fewest} "
                    "things or more; give more nouns."
                )
            unseen = self.split == "unseen-pairs"
            if not any(held_out_pair(one, other) == unseen for one, other in combinations(known, 2)):
                raise ValueError(f"No two of these nouns may stand in a caption of {self.split}; give more nouns.")

    def _make(self, index: np.ndarray) -> list[CollageSample]:
        samples = list(map(self._sample, index.tolist()))
        return list(map(self._in_language, samples)) if self.translated else samples

    def _sample(self, i: int) -> CollageSample:
        if self.pictures is None:
            return self._first(i)
        picture = i % self.pictures
        sample = replace(self._known_first(picture), grid=self._grid(picture) if self.grid else None)
        if i < self.pictures:
            return sample
        rng = np.random.default_rng([int(stream("collages", self.split)), self.seed, picture, i])
        caption, links = self._tell(sample.things, rng)
        return replace(sample, caption=caption, links=links, bits=int(rng.integers(2**32)))

    def _known_first(self, picture: int) -> CollageSample:
        """The same as ``_first``, laid out once."""
        if picture not in self._laid:
            self._laid[picture] = self._first(picture)
        return self._laid[picture]

    def _first(self, picture: int) -> CollageSample:
        """A picture, with the first of its captions."""
        rng = np.random.default_rng([int(stream("collages", self.split)), self.seed, picture])
        while True:  # few layouts have no two things that may be named together
            things = lay_out(rng, self.styles.get(self.split, KNOWN), self.fewest, self.most, nouns=self.nouns)
            caption, links = describe(things, rng, self.split == "unseen-pairs")
            if len(links) > 1:
                paper, bits = int(rng.integers(PAPERS)), int(rng.integers(2**32))
                return CollageSample(self.size, things, caption, links, paper, bits)

    def _tell(self, things: Sequence[Thing], rng: np.random.Generator) -> tuple[str, tuple[Link, ...]]:
        """Another caption of things of which some two may be named together."""
        while True:
            caption, links = describe(things, rng, self.split == "unseen-pairs")
            if len(links) > 1:
                return caption, links

    def _grid(self, picture: int) -> Float[Tensor, "positions 96"]:
        """The frozen features of a picture, computed with those beside it."""
        from mmlearn.data.grid_features import grid_features

        chunk, number = divmod(picture, CHUNK)
        if chunk not in self._grids:
            beside = map(self._known_first, range(chunk * CHUNK, (chunk + 1) * CHUNK))
            self._grids[chunk] = grid_features(draw([(each.things, each.paper) for each in beside], self.size))
        return self._grids[chunk][number]

    def _in_language(self, sample: CollageSample) -> CollageSample:
        """The sample with a caption that lists in this language what its English caption names."""
        assert self.translated is not None
        caption, links = "", []
        for link in sample.links:
            name = self.translated[sample.things[link.object].noun]
            start = len(caption) + 2 * bool(caption)
            caption = f"{caption}, {name}" if caption else name
            links.append(Link(start, start + len(name), link.object))
        return replace(sample, caption=caption, links=tuple(links))
