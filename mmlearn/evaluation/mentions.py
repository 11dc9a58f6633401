"""Where captions name objects whose position is known, and what a model's maps say of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mmlearn.data.tokenizer import Tokenizer
from mmlearn.evaluation.alignment import on_grid


class Mentions(NamedTuple):
    """n phrases that name an object, or several: in which sample, with which tokens, and where they are."""

    sample: list[int]
    phrase: list[str]
    tokens: list[list[int]]  # positions in the caption, in order
    object: list[int]
    region: Float[Tensor, "n p"]  # the share of each patch that what is named covers

    def select(self, maps: Float[Tensor, "b t p"]) -> Float[Tensor, "n p"]:
        """Of one map a token, those of the last token of each phrase: its noun, which has read the whole phrase."""
        return torch.stack([maps[sample, tokens[-1]] for sample, tokens in zip(self.sample, self.tokens)])


def find_mentions(samples: Sequence[Any], tokenizer: Tokenizer, grid: tuple[int, int]) -> Mentions:
    """Every link of these samples (as ``scenes`` has them) on a (rows, columns) grid of patches.

    Phrases that the tokenizer cut off are left out. Raises ``ValueError`` where nothing is linked.
    """
    rows = [
        (i, sample.caption[link.start : link.end], tokens, link.object, on_grid(sample.mask_of(link)[None], grid)[0])
        for i, sample in enumerate(samples)
        for link in getattr(sample, "links", ())
        if (tokens := tokenizer.positions(sample.caption, link.start, link.end))
    ]
    if not rows:
        raise ValueError("No caption of these samples is linked to a region, so nothing can be pointed at.")
    *columns, regions = zip(*rows)
    return Mentions(*map(list, columns), torch.stack(regions))
