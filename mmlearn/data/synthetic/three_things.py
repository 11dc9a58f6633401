"""Collages of three dyed things, and captions of two of them: many pictures have a caption's words, few fit it.

"A red car and a blue book" has the words of any picture with a car, a book, red and blue. It is true only where the
car is red and the book is blue.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.data.grid_features import as_channels, grid_features
from mmlearn.data.synthetic.collages import Collages, CollageSample, Thing
from mmlearn.data.synthetic.cutouts import COLOURS, DYED

WORDS = ("<pad>", "<start>", "<mask>", "a", "and", *COLOURS, *DYED)
CONTENT = (2, 3, 6, 7)  # where a caption has its colours and nouns


class ThreeThings(NamedTuple):
    """Pictures of three things, their frozen features, and the tokens of the six captions of each."""

    samples: list[CollageSample]
    grid: Float[Tensor, "n 96 rows columns"]
    captions: Int[Tensor, "n 6 8"]  # the first names the first two things

    @property
    def asked(self) -> list[str]:
        """The first caption of each picture."""
        return [say(*sample.things[:2]) for sample in self.samples]

    @property
    def shown(self) -> tuple[Float[Tensor, "n 13"], Float[Tensor, "n 42"]]:
        """What a picture's captions state together: see :func:`stated`."""
        words, things = stated(self.captions)
        return words.amax(1), things.amax(1)

    def compared(self) -> tuple[Bool[Tensor, "n n"], Bool[Tensor, "n n"]]:
        """For the first caption of each picture (rows): which pictures (columns) it fits, and which mix its words up.

        A caption fits where both of its coloured things are. Its words are mixed up where both colours and both nouns
        are, but not on each other.
        """
        (words, things), shown = stated(self.captions[:, 0]), self.shown
        fits = things @ shown[1].T == 2
        return fits, (words @ shown[0].T == 4) & ~fits

    def boxes(self, number: int) -> list[list[list[float]]]:
        """Of each picture the box of this thing, as shares of its sides, in a list."""
        return [(sample.boxes[number : number + 1] / sample.size).tolist() for sample in self.samples]

    def erased(self, numbers: Sequence[int]) -> list[CollageSample]:
        """The pictures without one of their things each."""
        return [
            replace(sample, things=tuple(thing for k, thing in enumerate(sample.things) if k != gone), grid=None)
            for sample, gone in zip(self.samples, numbers, strict=True)
        ]

    def nearest(self, points: Sequence[tuple[float, float]]) -> list[int]:
        """The number of the thing whose centre is nearest to this point of each picture, in shares of its sides."""
        return [sample.nearest(point) for sample, point in zip(self.samples, points, strict=True)]


def three_things(split: str, count: int, *, seed: int = 0) -> ThreeThings:
    """Of the first ``count`` collages of a split those whose things differ in noun and in colour: about four in ten."""
    drawn = Collages(split, nouns=DYED, things=3, size=64, seed=seed).__getitems__(range(count))
    samples = [
        each for each in drawn if len({t.noun for t in each.things}) == len({t.colour for t in each.things}) == 3
    ]
    told = [caption_tokens([say(*pair) for pair in permutations(each.things, 2)]) for each in samples]
    return ThreeThings(samples, grid_of_collages(samples), torch.stack(told))


def grid_of_collages(samples: Sequence[CollageSample]) -> Float[Tensor, "n 96 rows columns"]:
    """What the frozen first layers of MobileNetV2 make of these pictures."""
    return as_channels(grid_features(torch.stack([each.image for each in samples])))


def say(one: Thing, other: Thing) -> str:
    """ "a red car and a blue book"."""
    return f"a {one.name} and a {other.name}"


def caption_tokens(captions: Sequence[str]) -> Int[Tensor, "n 8"]:
    """The number of each word in ``WORDS``, after that of "<start>"."""
    return torch.tensor([[WORDS.index(word) for word in f"<start> {each}".split()] for each in captions])


def stated(tokens: Int[Tensor, "*n 8"]) -> tuple[Float[Tensor, "*n 13"], Float[Tensor, "*n 42"]]:
    """Which colours and nouns captions have, and which coloured things: ones and zeros.

    The numbers of things go through all nouns in the first colour, then in the second.
    """
    first = WORDS.index(COLOURS[0])
    words = tokens[..., CONTENT] - first  # (*n, 4): colour, noun, colour, noun
    things = words[..., ::2] * len(DYED) + words[..., 1::2] - len(COLOURS)  # (*n, 2)
    both = (F.one_hot(words, len(COLOURS) + len(DYED)), F.one_hot(things, len(COLOURS) * len(DYED)))
    return both[0].amax(-2).float(), both[1].amax(-2).float()
