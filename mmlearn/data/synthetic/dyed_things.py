"""One dyed cut-out on soft paper, "a purple shirt": small pictures of which every colour and noun is known.

There are seven nouns in six colours. One colour of each noun is held out: no picture of the split ``train`` shows it.
Style, side, paper, size and place vary, the last two by little, so that a minute of training suffices to draw them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmlearn.data.hashing import stream
from mmlearn.data.packaged.emoji import KNOWN
from mmlearn.data.synthetic.collages import Thing, draw, lay_out
from mmlearn.data.synthetic.cutouts import COLOURS, DYED
from mmlearn.suggestions import suggest

HELD_OUT = {
    "car": "blue", "balloon": "green", "book": "pink", "umbrella": "red", "dress": "yellow", "shirt": "purple",
    "telephone": "green",
}  # fmt: skip
SPLITS = ("train", "test", "held-out", "all")  # what is seen in training, twice; what is not; and both
SIDES = 0.76, 0.9  # of the picture's edge, a thing's longer edge
AWAY = 0.04  # of the picture's edge, at most, is a thing's centre from the middle, across and down
GROUNDS = 3  # papers
CHUNK = 500  # pictures that are drawn at a time


class DyedThings(NamedTuple):
    """Pictures of one thing each."""

    images: Float[Tensor, "n 3 size size"]  # from 0 to 1
    things: tuple[Thing, ...]
    papers: tuple[str, ...] = ()  # the colour of each paper, where papers are coloured

    @property
    def captions(self) -> list[str]:
        """ "a purple shirt" of each, or "a purple shirt on blue paper"."""
        grounds = [f" on {paper} paper" for paper in self.papers] or [""] * len(self.things)
        return [f"a {thing.name}{ground}" for thing, ground in zip(self.things, grounds)]

    @property
    def colours(self) -> Int[Tensor, "n"]:
        """The number of each thing's colour in ``COLOURS``."""
        return torch.tensor([COLOURS.index(str(thing.colour)) for thing in self.things])

    @property
    def nouns(self) -> Int[Tensor, "n"]:
        """The number of each thing's noun in ``DYED``."""
        return torch.tensor([DYED.index(thing.noun) for thing in self.things])


def every_pair() -> list[tuple[str, str]]:
    """All (colour, noun), colour by colour."""
    return [(colour, noun) for colour in COLOURS for noun in DYED]


def every_caption(nouns: Sequence[str] = DYED, papers: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    """All captions of :func:`dyed_things`, and what each asks for: (colour, noun), or (colour, noun, paper)."""
    meanings = [(c, noun, *paper) for paper in [[each] for each in papers] or [[]] for c in COLOURS for noun in nouns]
    return {f"a {c} {noun}" + "".join(f" on {each} paper" for each in paper): (c, noun, *paper)
            for c, noun, *paper in meanings}  # fmt: skip


def dyed_things(
    split: str,
    count: int,
    *,
    size: int = 32,
    seed: int = 0,
    nouns: Sequence[str] = DYED,
    papers: Sequence[str] = (),
    styles: Sequence[str] = KNOWN,
) -> DyedThings:
    """So many pictures of a split, ``size`` pixels a side; with ``papers``, names of colours, on coloured paper.

    Raises ``ValueError`` for an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}; {suggest(split, SPLITS)}.")
    rng = np.random.default_rng([int(stream("dyed things", split)), seed])
    chosen: list[tuple[Sequence[Thing], int]] = []
    while len(chosen) < count:
        (thing,) = lay_out(rng, styles, 1, 1, nouns=nouns)
        across, down = 0.5 + rng.uniform(-AWAY, AWAY, 2)
        thing = replace(thing, side=float(rng.uniform(*SIDES)), centre=(float(across), float(down)))
        new = HELD_OUT[thing.noun] == thing.colour
        if split == "all" or new == (split == "held-out"):
            chosen.append(((thing,), int(rng.integers(GROUNDS * max(1, len(papers))))))
    images = [draw(chosen[start : start + CHUNK], size, papers) for start in range(0, count, CHUNK)]
    grounds = tuple(papers[ground // GROUNDS] for _, ground in chosen) if papers else ()
    return DyedThings(torch.cat(images), tuple(things[0] for things, _ in chosen), grounds)
