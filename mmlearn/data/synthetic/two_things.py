"""Collages of two dyed things, and a caption of each: "a blue car above a red telephone".

A caption names the things from left to right, or from top to bottom; *left of* is one word, so all are as long.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmlearn.data.synthetic.collage_words import relation
from mmlearn.data.synthetic.collages import Collages, CollageSample, Thing, draw, lay_out
from mmlearn.data.synthetic.cutouts import COLOURS, DYED, PAPERS

WORDS = ("<start>", "<end>", "a", "left of", "above", *COLOURS, *DYED)
CONTENT = (2, 3, 6, 7)  # where a caption has its colours and nouns
SIZE = 48  # pixels a side
# The colours of six photographs.
CLEAR = {"apple": "red", "strawberry": "red", "lemon": "yellow", "banana": "yellow", "bus": "green", "bicycle": "blue"}


class TwoThings(NamedTuple):
    """Pictures of two things each, and the words of their captions, as numbers in ``WORDS``."""

    samples: list[CollageSample]
    images: Float[Tensor, "n 3 size size"]  # from 0 to 1
    tokens: Int[Tensor, "n 9"]

    @property
    def captions(self) -> list[str]:
        """ "a blue car above a red telephone", of each."""
        return [told(row) for row in self.tokens]

    @property
    def boxes(self) -> list[list[list[list[float]]]]:
        """Of each picture, for each word of ``CONTENT``, the box of its thing as shares of the sides, in a list."""
        both = [
            [(replace(sample, things=(thing,)).boxes / sample.size).tolist() for thing in in_order(sample.things)]
            for sample in self.samples
        ]
        return [[one, one, other, other] for one, other in both]

    def facts(self, written: Int[Tensor, "n 9"]) -> Float[Tensor, "n 3"]:
        """Which facts captions get right: the first thing with its colour, the relation, the second thing."""
        same = written == self.tokens
        return torch.stack([same[:, 2:4].all(1), same[:, 4], same[:, 6:8].all(1)], 1).float()

    def redyed(self) -> "TwoThings":
        """The same pictures, where the thing that is named second has the next colour of ``COLOURS``."""
        changed = []
        for sample in self.samples:
            other = in_order(sample.things)[1]
            new = replace(other, colour=COLOURS[(COLOURS.index(str(other.colour)) + 1) % len(COLOURS)])
            things = tuple(new if thing is other else thing for thing in sample.things)
            changed.append(replace(sample, things=things))
        return _with_captions(changed)


class SingleThings(NamedTuple):
    """Pictures of one thing each."""

    images: Float[Tensor, "n 3 size size"]  # from 0 to 1
    things: tuple[Thing, ...]
    known: tuple[str, ...]  # the nouns that there are

    @property
    def nouns(self) -> Int[Tensor, "n"]:
        """The number of each thing's noun among those that there are."""
        return torch.tensor([self.known.index(thing.noun) for thing in self.things])

    @property
    def colours(self) -> Int[Tensor, "n"]:
        """The number of each thing's colour in ``COLOURS``. ``ValueError`` where a thing has none."""
        return torch.tensor([COLOURS.index(str(thing.colour)) for thing in self.things])

    def shown(self, count: int, size: int = 160) -> Float[Tensor, "count 3 size size"]:
        """The first of them, large, each on another paper; photographs keep their own colours."""
        things = [replace(thing, colour=None) if thing.style == "stamps" else thing for thing in self.things[:count]]
        return draw([((thing,), paper) for paper, thing in enumerate(things)], size)


def in_order(things: Sequence[Thing]) -> tuple[Thing, Thing]:
    """The two things as a caption names them."""
    one, other = things
    return (other, one) if relation(one, other) in ("right of", "below") else (one, other)


def told(tokens: Int[Tensor, "t"]) -> str:
    """The words of a caption, without its start and its end."""
    return " ".join(WORDS[k] for k in tokens.tolist() if k > 1)


def content_spans(tokens: Int[Tensor, "t"]) -> tuple[str, list[tuple[int, int]]]:
    """A caption, and in it the start and end of each word of ``CONTENT``."""
    words, spans, start = [WORDS[k] for k in tokens[1:].tolist()], [], 0
    for word in words:
        spans.append((start, start + len(word)))
        start += len(word) + 1
    return told(tokens), [spans[k - 1] for k in CONTENT]


def two_things(split: str, count: int, *, seed: int = 0) -> TwoThings:
    """The first ``count`` collages of a split of :class:`Collages` with two of the seven dyed nouns."""
    return _with_captions(Collages(split, nouns=DYED, things=2, size=SIZE, seed=seed).__getitems__(range(count)))


def _with_captions(samples: list[CollageSample]) -> TwoThings:
    tokens = []
    for sample in samples:
        one, other = in_order(sample.things)
        words = ("<start>", "a", one.colour, one.noun, relation(one, other), "a", other.colour, other.noun, "<end>")
        tokens.append([WORDS.index(str(word)) for word in words])
    return TwoThings(samples, torch.stack([sample.image for sample in samples]), torch.tensor(tokens))


def single_things(styles: Sequence[str], nouns: Sequence[str], count: int, *, seed: int = 0) -> SingleThings:
    """Pictures of one of these nouns each, in these styles, for probes."""
    rng = np.random.default_rng(seed)
    things = tuple(lay_out(rng, styles, 1, 1, nouns=nouns, area=0.4)[0] for _ in range(count))
    return SingleThings(draw([((thing,), int(rng.integers(PAPERS))) for thing in things], SIZE), things, tuple(nouns))


def clear_photographs() -> SingleThings:
    """Six photographs whose colour is clear to a person, in a row on each of the papers."""
    things = tuple(Thing(noun, "stamps", colour, (0.5, 0.5), 0.7, False) for noun, colour in CLEAR.items())
    undyed = [replace(thing, colour=None) for thing in things]
    images = draw([((thing,), paper) for paper in range(PAPERS) for thing in undyed], SIZE)
    return SingleThings(images, things * PAPERS, tuple(CLEAR))
