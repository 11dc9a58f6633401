"""``collages``: light pictures composed of real, named cut-outs, about which everything is known.

Four to eight things of one style stand on soft paper. The caption names two or three of them, with their colours where
they are dyed, how many they are, and how they stand: "a plane below a green umbrella and a purple shirt". Boxes, masks,
names, links, true relations and a question come with each. Collage i of a split is a function of (split, i, seed).

What is held out: two styles of drawings (``unseen-style``), line art (``line-art``), photographs (``photographs``), and
one pair of nouns in eight, which no caption of the other splits names together (``unseen-pairs``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmlearn.data.hashing import stream
from mmlearn.data.packaged.emoji import FLUENT, KNOWN, OPENMOJI
from mmlearn.data.synthetic.cutouts import (
    COLOURS,
    DYED,
    NOUNS,
    PAPERS,
    PHOTOGRAPHS,
    PLURALS,
    Sprite,
    cutout,
    noun_names,
    nouns_of,
    papers,
    sprite,
    variants,
)
from mmlearn.data.synthetic.dataset import Rendered
from mmlearn.data.synthetic.questions import OPPOSITE, Question
from mmlearn.data.synthetic.scenes import Link
from mmlearn.suggestions import suggest

MOST, FEWEST = 8, 4  # things
AREA = 0.45  # of the picture that things fill, about
WORDED = {"left of": "to the left of", "right of": "to the right of"}  # in captions
ANSWERS = ("yes", "no", "0", "1", "2", *COLOURS)


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

    ``image`` is float32 (3, size, size) in [0, 1]. ``things`` are in the order in which they were laid down, the
    largest first; boxes, names and masks follow it.
    """

    image: Float[Tensor, "3 size size"]
    things: tuple[Thing, ...]
    caption: str
    links: tuple[Link, ...]  # caption[start:end] names things[object] and all that are called the same
    paper: int
    bits: int  # which pick the question

    @property
    def size(self) -> int:
        return self.image.shape[-1]

    def retold(self, seed: int, *, unseen_pairs: bool = False) -> "CollageSample":
        """The same picture with another caption."""
        caption, links = describe(self.things, np.random.default_rng(seed), unseen_pairs)
        return replace(self, caption=caption, links=links)

    def drawn(self, size: int) -> "CollageSample":
        """The same collage, drawn at another size."""
        return replace(self, image=draw([(self.things, self.paper)], size)[0])

    def boxes_of(self, link: Link) -> list[int]:
        """Which things a link names: more than one where the caption says two."""
        name = self.things[link.object].name
        return [number for number, thing in enumerate(self.things) if thing.name == name]

    def grounded_position(self, link: Link) -> tuple[int, int]:
        """Where the noun of a link is in the caption: the word that only the picture can tell."""
        return self.caption.rfind(" ", link.start, link.end) + 1 or link.start, link.end

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
            (i, _relation(self.things[i], self.things[j]), j) for i, j in permutations(range(len(self.things)), 2)
        )

    @cached_property
    def question(self) -> Question:
        """One question about the picture, with its kind (exist, count, colour, relation) and its answer."""
        return _ask(self.things, self.bits)


def _relation(one: Thing, other: Thing) -> str:
    """How one thing stands to another, along the axis on which they are further apart."""
    x, y = one.centre[0] - other.centre[0], one.centre[1] - other.centre[1]
    return ("right of" if x > 0 else "left of") if abs(x) > abs(y) else "below" if y > 0 else "above"


def _article(name: str) -> str:
    return "an" if name[0] in "aeiou" else "a"


def held_out_pair(one: str, other: str) -> bool:
    """Whether no training caption names these two nouns together: one pair in eight."""
    a, b = sorted((NOUNS.index(one), NOUNS.index(other)))
    return (a * 31 + b * 17) % 8 == 0


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


def describe(
    things: Sequence[Thing], rng: np.random.Generator, unseen_pairs: bool = False
) -> tuple[str, tuple[Link, ...]]:
    """A caption that names two or three kinds of these things, and its links.

    With ``unseen_pairs`` its first two nouns are a held-out pair, else no two of its nouns are one. One thing alone is
    named where the collage has no such pair.
    """
    groups: dict[str, list[int]] = {}
    for number, thing in enumerate(things):
        groups.setdefault(thing.name, []).append(number)
    kinds = [list(groups.values())[k] for k in rng.permutation(len(groups))]
    chosen = kinds[:1]
    if unseen_pairs:  # which of the kinds comes first is as random as before
        pairs = [
            (one, other) for one, other in permutations(kinds, 2)
            if len(other) == 1 and held_out_pair(things[one[0]].noun, things[other[0]].noun)
        ]  # fmt: skip
        chosen = list(pairs[0][:1]) if pairs else chosen
        kinds = [*chosen, *(other for one, other in pairs if one is chosen[0])]
    wanted = 2 + (rng.random() < 0.5)
    for group in kinds[1:]:
        noun = things[group[0]].noun
        fits = [held_out_pair(things[one[0]].noun, noun) == (unseen_pairs and one is chosen[0]) for one in chosen]
        repeated = any(things[one[0]].noun == noun for one in chosen)
        if len(group) == 1 and not repeated and all(fits) and len(chosen) < wanted:
            chosen.append(group)
    caption, links, said = "", [], ""
    for position, group in enumerate(chosen):
        first, thing, two = things[chosen[0][0]], things[group[0]], len(group) > 1
        how = _relation(first, thing) if len(chosen[0]) == 1 else "with"
        if position:
            caption += " and" * (position > 1) + f" {WORDED.get(how, how)}" * (how != said) + " "
            said = how
        name = " ".join(filter(None, (thing.colour, PLURALS[thing.noun] if two else thing.noun)))
        caption += "two " if two else f"{_article(name)} "
        links.append(Link(len(caption), len(caption) + len(name), group[0]))
        caption += name
    return caption, tuple(links)


def draw(collages: Sequence[tuple[Sequence[Thing], int]], size: int) -> Float[Tensor, "n 3 size size"]:
    """Collages, each its things and the number of its paper, as pictures in [0, 1]."""
    grounds = papers(size)
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


def _ask(things: Sequence[Thing], bits: int) -> Question:
    """The question that ``bits`` picks; every kind that the collage allows is as likely, and so are yes and no."""
    nouns = [thing.noun for thing in things]
    once = [thing for thing in things if nouns.count(thing.noun) == 1]
    dyed = [thing for thing in once if thing.colour]
    kinds = ("exist", "count", *(["relation"] if len(once) > 1 else []), *(["colour"] if dyed else []))
    bits, kind = divmod(bits, len(kinds))
    bits, yes = divmod(bits, 2)
    absent = [noun for noun in NOUNS if noun not in nouns]
    if kinds[kind] == "exist":
        noun = nouns[bits % len(nouns)] if yes else absent[bits % len(absent)]
        return Question("exist", f"is there {_article(noun)} {noun}?", "yes" if yes else "no")
    if kinds[kind] == "count":  # twice as often of what is there
        choices = sorted(nouns, key=nouns.count, reverse=True) if yes or bits % 2 else absent
        noun = choices[0] if yes else choices[bits % len(choices)]
        return Question("count", f"how many {PLURALS[noun]} are there?", str(nouns.count(noun)))
    if kinds[kind] == "colour":
        thing = dyed[bits % len(dyed)]
        return Question("colour", f"what colour is the {thing.noun}?", str(thing.colour))
    one = once[bits % len(once)]
    others = [thing for thing in once if thing is not one]
    other = others[bits // len(once) % len(others)]
    relation = _relation(one, other)
    stated = relation if yes else OPPOSITE[relation]
    return Question("relation", f"is the {one.noun} {stated} the {other.noun}?", "yes" if yes else "no")


class Collages(Rendered):
    """Collages of a split, ``size`` pixels a side.

    ``train``, ``val`` and ``test`` have the same three styles of drawings; the others are what is held out, see above.
    ``things`` makes all have that many, and ``nouns`` are those that they are chosen from. In another ``language`` than
    English the caption lists what it names, separated by commas. Raises ``ValueError`` as :class:`Rendered` does, for
    an unknown language or noun, and for fewer than 2 or more than 8 things, or than there are nouns.
    """

    name, smallest, epoch = "collages", 64, 100_000
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
        **options: Any,
    ):
        super().__init__(split, size=size, **options)
        if things is not None and not 2 <= things <= MOST:
            raise ValueError(f"{self.name} has 2 to {MOST} things, got {things}.")
        self.fewest, self.most = (FEWEST, MOST) if things is None else (things, things)
        if strange := [noun for noun in nouns if noun not in NOUNS]:
            raise ValueError(f"{self.name} has no {strange[0]!r}; {suggest(strange[0], NOUNS)}.")
        if len(nouns) < 2 or len(nouns) < self.fewest:
            raise ValueError(f"{self.name} needs at least as many nouns as things, got {len(nouns)}.")
        self.nouns = tuple(nouns)
        self.language, self.translated = language, None
        if language != "en":
            from mmlearn.data.packaged.archives import read_json

            if language not in (known := read_json("emoji", "names.json.gz")):
                raise ValueError(f"{self.name} has no names in {language!r}; {suggest(language, known)}.")
            self.translated = noun_names(language)

    def _make(self, index: np.ndarray) -> list[CollageSample]:
        styles, key, told = self.styles.get(self.split, KNOWN), int(stream("collages", self.split)), []
        unseen = self.split == "unseen-pairs"
        for i in index.tolist():
            rng = np.random.default_rng([key, self.seed, i])
            while True:
                things = lay_out(rng, styles, self.fewest, self.most, nouns=self.nouns)
                caption, links = describe(things, rng, unseen)
                if len(links) > 1:  # few layouts have no two things that may be named together
                    break
            told.append((things, int(rng.integers(PAPERS)), caption, links, int(rng.integers(2**32))))
        images = draw([(things, paper) for things, paper, *_ in told], self.size)
        samples = [
            CollageSample(image, things, caption, links, paper, bits)
            for image, (things, paper, caption, links, bits) in zip(images, told)
        ]
        return [self._in_language(sample) for sample in samples] if self.translated else samples

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
