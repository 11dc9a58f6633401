"""Collages of four dyed things, as drawings and as photographs, each thing in colour and in grey.

Where a caption leaves out the colour of a thing that is shown in colour, and says that of a thing that is shown in
grey, each colour is told once: by the picture or by the words.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.data.grid_features import grid_features
from mmlearn.data.synthetic.collages import Collages, CollageSample, draw
from mmlearn.data.synthetic.cutouts import COLOURS
from mmlearn.data.synthetic.regions import crop

NOUNS = ("apple", "bicycle", "butterfly", "fish", "guitar", "hammer", "mushroom", "trumpet")  # drawn and photographed
WORDS = ("<pad>", "<mask>", "a", ",", "and", *COLOURS, *NOUNS)
FIRST = WORDS.index(COLOURS[0])  # the tokens of the six colours begin here, and behind them are those of the nouns
LIST = "a <mask> <mask> , a <mask> <mask> , a <mask> <mask> and a <mask> <mask>"


class Question(NamedTuple):
    """Captions of four phrases, "a blue apple , a <mask> fish , a red guitar and a <mask> hammer"."""

    tokens: Int[Tensor, "b 15"]
    position: Int[Tensor, "b 4"]  # where the colour of each thing is, or was
    hidden: Bool[Tensor, "b 4"]  # whose word is hidden; the regions of the others are shown in grey

    def words(self, number: int) -> list[str]:
        """The words of a caption, a hidden one as "[?]"."""
        return [WORDS[token].replace("<mask>", "[?]") for token in self.tokens[number].tolist()]


class ToldOnce(NamedTuple):
    """Pictures, and what is in each of their four boxes."""

    samples: list[CollageSample]
    boxes: Float[Tensor, "n 4 4"]  # as shares of the picture's sides
    features: Float[Tensor, "n 4 2 99"]  # in colour; in grey
    nouns: Int[Tensor, "n 4"]
    colours: Int[Tensor, "n 4"]

    def ask(self, rows: Int[Tensor, "b"], generator: torch.Generator) -> Question:
        """A new caption for each of these pictures, which names its things in random order and hides two colours."""
        position = 4 * torch.rand(len(rows), 4, generator=generator).argsort(1) + 1  # phrases begin at 0, 4, 8 and 12
        hidden = torch.rand(len(rows), 4, generator=generator).argsort(1) < 2
        tokens = torch.tensor([[WORDS.index(word) for word in LIST.split()]]).repeat(len(rows), 1)
        tokens.scatter_(1, position, torch.where(hidden, WORDS.index("<mask>"), FIRST + self.colours[rows]))
        return Question(tokens.scatter_(1, position + 1, FIRST + len(COLOURS) + self.nouns[rows]), position, hidden)

    def shown(self, number: int, grey: Bool[Tensor, "4"], size: int = 256) -> Float[Tensor, "3 size size"]:
        """A picture with some of its things in grey."""
        sample = self.samples[number].drawn(size)
        covered = sample.masks[grey].any(0)
        return torch.where(covered, sample.image.mean(0, keepdim=True), sample.image)

    def recoloured(self, colours: Int[Tensor, "n 4"]) -> "ToldOnce":
        """The same pictures, their things in these colours."""
        return _measured([_dyed(each, row) for each, row in zip(self.samples, colours.tolist(), strict=True)])


def told_once(split: str, count: int, *, seed: int = 0) -> ToldOnce:
    """So many collages of four different things, each in a random colour.

    Features are the mean of what the first layers of MobileNetV2 make of a box, enlarged to 64 pixels, and behind these
    96 numbers the mean colour of the box, 4 × (red, green, blue, each from 0 to 1, minus 0.7). For the grey ones the
    thing was dyed in another random colour before, so that its brightness gives nothing away.
    """
    drawn, rng = Collages(split, nouns=NOUNS, things=4, size=128, seed=seed), random.Random(f"{split} {seed}")
    samples: list[CollageSample] = []
    at = 0
    while len(samples) < count:
        sample, at = drawn[at], at + 1
        if len(set(sample.names)) == 4:
            samples.append(_dyed(sample, rng.choices(range(len(COLOURS)), k=4)))
    return _measured(samples)


def _dyed(sample: CollageSample, colours: Sequence[int]) -> CollageSample:
    things = tuple(replace(each, colour=COLOURS[k]) for each, k in zip(sample.things, colours))
    return replace(sample, things=things)


def _measured(samples: list[CollageSample]) -> ToldOnce:
    rng = random.Random("grey")
    other = [_dyed(each, rng.choices(range(len(COLOURS)), k=4)) for each in samples]
    boxes = torch.stack([each.boxes / each.size for each in samples])
    found = []
    for drawn, grey in ((samples, False), (other, True)):
        images = draw([(each.things, each.paper) for each in drawn], samples[0].size)
        images = images.mean(1, keepdim=True).expand_as(images).contiguous() if grey else images
        crops = crop(images, boxes, 64, 64)  # (n, 4, 3, 64, 64)
        grid = grid_features(crops.flatten(0, 1), keep=False).mean(1).unflatten(0, boxes.shape[:2])  # (n, 4, 96)
        found.append(torch.cat([grid, 4 * (crops.mean((-2, -1)) - 0.7)], -1))  # (n, 4, 99)
    nouns = torch.tensor([[NOUNS.index(noun) for noun in each.names] for each in samples])
    colours = torch.tensor([[COLOURS.index(str(thing.colour)) for thing in each.things] for each in samples])
    return ToldOnce(samples, boxes, torch.stack(found, 2), nouns, colours)
