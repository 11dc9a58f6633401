"""Boards of nine tiles, each with one thing, and a question about two of them: "right of the hammer", what and where?

A tile is seen by itself, so nothing of a tile's features is of its neighbours. Things are drawings of 18 nouns, or the
photographs of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from mmlearn.data.feature_cache import cached_features
from mmlearn.data.synthetic.collages import Thing, draw
from mmlearn.data.synthetic.cutouts import PAPERS, variants
from mmlearn.data.synthetic.where import PLACES

THINGS = (
    "horse", "elephant", "penguin", "fish", "butterfly", "frog", "owl", "apple", "banana", "pear", "strawberry",
    "pineapple", "carrot", "bicycle", "plane", "guitar", "hammer", "key",
)  # fmt: skip
RELATIONS = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}  # rows, columns
NEXT = torch.tensor(  # (relations, places): the neighbour of each place, or -1 at the edge
    [
        [3 * (y + dy) + x + dx if 0 <= y + dy < 3 and 0 <= x + dx < 3 else -1 for y in range(3) for x in range(3)]
        for dy, dx in RELATIONS.values()
    ]
)
WORDS = [*THINGS, *RELATIONS, *PLACES, "<none>"]
NONE = WORDS.index("<none>")
TILE = 96  # pixels
SIDES = 0.7, 0.85  # of a tile, the longer edge of its thing


class Tiles(NamedTuple):
    """Tiles to make boards of: their pixels, what a frozen network says of each, and the number of its noun."""

    images: Float[Tensor, "n 3 size size"]
    features: Float[Tensor, "n width"]
    nouns: Int[Tensor, "n"]


class Boards(NamedTuple):
    """Boards, and of each one question: two words, what is asked for and where it is, and the place that is named."""

    tiles: Int[Tensor, "b 9"]
    question: Int[Tensor, "b 2"]  # of WORDS; of a question by place the second is "<none>"
    what: Int[Tensor, "b"]  # of THINGS
    where: Int[Tensor, "b"]  # of PLACES
    named: Int[Tensor, "b"]  # of PLACES

    def asked(self, row: int) -> str:
        """ "right of the hammer", or "at the top-left"."""
        noun, relation = (WORDS[word] for word in self.question[row].tolist())
        return f"at the {noun}" if relation == "<none>" else f"{relation} the {noun}"


def tiles(styles: Sequence[str]) -> Tiles:
    """Every thing in these styles, in two sizes and mirrored; features are MobileNetV2's, of each tile by itself."""
    from mmlearn.pretrained.backbone import load_backbone

    chosen: list[tuple[Sequence[Thing], int]] = []
    nouns = []
    for noun in THINGS:
        for style in styles:
            for k in range(4 * variants(noun, style)):
                thing = Thing(noun, style, None, (0.5, 0.5), SIDES[k % 2], bool(k // 2 % 2), k // 4)
                chosen.append(((thing,), len(chosen) % PAPERS))
                nouns.append(THINGS.index(noun))
    images, network = draw(chosen, TILE), load_backbone(TILE)

    @torch.no_grad()
    def compute() -> dict[str, Tensor]:
        return {"tiles": torch.cat([network(part) for part in images.split(64)])}

    features = cached_features(compute, "tiles of MobileNetV2", images, *network.parameters())["tiles"]
    return Tiles(images, F.layer_norm(features, (network.width,)), torch.tensor(nouns))


def compressed(known: Tiles, *others: Tiles, width: int = 128) -> list[Tiles]:
    r"""The same tiles with features along the directions in which those of ``known`` vary most, of variance 1 in all.

    .. math:: x' = (x - \mu) V / s

    The mean, the directions and the one scale s are those of ``known``, which is to be what a model learns from.
    """
    mean = known.features.mean(0)
    axes = torch.linalg.svd(known.features - mean, full_matrices=False).Vh[:width].T  # (1280, width)
    scale = ((known.features - mean) @ axes).std()
    return [each._replace(features=(each.features - mean) @ axes / scale) for each in (known, *others)]


def boards(known: Tiles, count: int, generator: torch.Generator, *, by_place: float = 0.0) -> Boards:
    """Boards of nine different things; a share of the questions, ``by_place``, gives the place itself.

    The named thing is equally often at every place that has such a neighbour.
    """
    order = torch.rand(count, len(known.nouns), generator=generator)  # a random tile of each noun, then nine nouns
    best = torch.stack([order.masked_fill(known.nouns != noun, -1).argmax(1) for noun in range(len(THINGS))], 1)
    nouns = torch.rand(count, len(THINGS), generator=generator).argsort(1)[:, :9]
    relation = torch.randint(len(RELATIONS), (count,), generator=generator)
    named = (NEXT[relation] >= 0).float().multinomial(1, generator=generator)[:, 0]
    where = NEXT[relation, named]
    noun, what = (nouns.gather(1, place[:, None])[:, 0] for place in (named, where))
    question = torch.stack([noun, len(THINGS) + relation], 1)
    direct = torch.stack([WORDS.index(PLACES[0]) + where, torch.full_like(where, NONE)], 1)
    given = torch.rand(count, 1, generator=generator) < by_place
    return Boards(best.gather(1, nouns), torch.where(given, direct, question), what, where, named)


def board_image(known: Tiles, board: Int[Tensor, "9"]) -> Float[Tensor, "3 side side"]:
    """A board as one picture, nine tiles in reading order."""
    return rearrange(known.images[board], "(row column) c y x -> c (row y) (column x)", row=3)


def board_boxes() -> Float[Tensor, "9 4"]:
    """Left, top, right and bottom edge of each place, as shares of the picture's sides."""
    return torch.tensor([[x, y, x + 1, y + 1] for y in range(3) for x in range(3)]) / 3
