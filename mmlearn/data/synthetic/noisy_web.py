"""A small web: collages of two or three things with captions that name them, of which a share is another picture's.

A caption is "fish, key and owl" or "key and owl": it names all things of its picture, in any order. It is true of any
picture that shows what it names.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.data.grid_features import grid_features
from mmlearn.data.hashing import stream
from mmlearn.data.packaged.emoji import KNOWN
from mmlearn.data.synthetic.collages import Collages, CollageSample, lay_out
from mmlearn.data.synthetic.cutouts import PAPERS, STAMPS

NAMED = tuple(STAMPS)  # the 34 nouns that are also photographed
WORDS = ("<pad>", "<cls>", "<encode>", "<decode>", "<end>", ",", "and", *NAMED)
FIRST = WORDS.index(NAMED[0])
LENGTH = 7  # tokens of a caption of three things: <cls> fish , key and owl <end>
ORDERS = 6  # of the things of each picture


class WebPictures(NamedTuple):
    """Pictures, their frozen features, and true captions of each, in six orders."""

    samples: list[CollageSample]
    patches: Float[Tensor, "n 36 96"]
    captions: Int[Tensor, "n 6 7"]  # those of two things have each order three times

    def true(self, tokens: Int[Tensor, "n 7"]) -> Bool[Tensor, "n"]:
        """Which of these captions, one of each picture, name nothing but what their picture shows."""
        return (named(tokens) <= named(self.captions[:, 0])).all(1)

    def nouns_right(self, tokens: Int[Tensor, "n 7"]) -> float:
        """Of the things that these captions name, the share that is in their picture; 0 if they name none."""
        names = named(tokens)
        return ((names & named(self.captions[:, 0])).sum() / names.sum().clamp(min=1)).item()

    def sorted_pairs(self, score: Float[Tensor, "n"], tokens: Int[Tensor, "n 7"]) -> float:
        """Of all pairs of a true caption and a wrong one, the share in which the true one scores higher.

        It is the area under the ROC curve, without ties; chance is one half, and NaN is without such pairs.
        """
        true = self.true(tokens)
        return (score[true][:, None] > score[~true]).float().mean().item()

    def with_errors(self, share: float, *, seed: int = 0) -> Int[Tensor, "n 7"]:
        """A caption of each picture, with this probability that of another one, for good, as on the web.

        Raises ``ValueError`` for a share outside 0 to 1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share is from 0 to 1, got {share}.")
        generator, n = torch.Generator().manual_seed(seed), len(self.samples)
        wrong = torch.rand(n, generator=generator) < share
        other = torch.randint(1, max(n, 2), (n,), generator=generator)
        return self.captions[(torch.arange(n) + wrong * other) % n, 0]


def web_pictures(split: str, count: int, *, seed: int = 0) -> WebPictures:
    """So many pictures of a split: "unseen-style" and "photographs" as those of collages; any other name is its own.

    So no picture of "clean" is in "web". Things of one picture differ.
    """
    rng = np.random.default_rng([int(stream("noisy web", split)), seed])
    samples: list[CollageSample] = []
    captions = []
    while len(samples) < count:
        things = lay_out(rng, Collages.styles.get(split, KNOWN), 2, 3, nouns=NAMED)
        nouns = [thing.noun for thing in things]
        if len(set(nouns)) == len(nouns):
            start = rng.integers(len(nouns))
            orders = [np.roll(nouns[:: 1 - 2 * (k % 2)], start + k // 2).tolist() for k in range(ORDERS)]
            captions.append(torch.stack([tokens_of(order) for order in orders]))
            samples.append(CollageSample(96, things, text_of(captions[-1][0]), (), int(rng.integers(PAPERS)), 0))
    return WebPictures(samples, grid_features(torch.stack([each.image for each in samples])), torch.stack(captions))


def tokens_of(nouns: Sequence[str]) -> Int[Tensor, "7"]:
    """The tokens of a caption that names these things, one to three."""
    words = ["<cls>", nouns[0], *(word for noun in nouns[1:-1] for word in (",", noun))]
    words += ["and", nouns[-1], "<end>"] if len(nouns) > 1 else ["<end>"]
    return torch.tensor([WORDS.index(word) for word in words] + [0] * (LENGTH - len(words)))


def text_of(tokens: Int[Tensor, "t"]) -> str:
    """What tokens say, up to their end."""
    words = [WORDS[token] for token in tokens.tolist()]
    words = words[: words.index("<end>")] if "<end>" in words else words
    return " ".join(word for word in words if word[0] != "<").replace(" ,", ",")


def named(tokens: Int[Tensor, "*n 7"]) -> Bool[Tensor, "*n 34"]:
    """Which of the 34 things captions name."""
    return F.one_hot((tokens - FIRST + 1).clamp(min=0), len(NAMED) + 1)[..., 1:].amax(-2).bool()
