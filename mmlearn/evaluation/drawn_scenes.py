"""Whether a drawn scene shows what its caption says, judged by a classifier that reads each cell of the grid.

The classifier is trained on real scenes that the painter has not seen, and its own errors are part of every number: a
picture that is right is called right as often as :func:`scene_scores` says of real pictures.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmlearn.data.synthetic.layouts import COLOURS, SHAPES

NOTHING = len(COLOURS)  # the number of an empty cell, as colour and as shape


class CellClassifier(nn.Module):
    """Colour and shape of what stands in each cell, or nothing: (b, 3, height, width) → 2 × (b, cells, 13) scores.

    A few convolutions that see one cell at a time. ``ValueError`` where the picture is not cut evenly.
    """

    def __init__(self, grid: int, width: int = 32):
        super().__init__()
        self.grid = grid
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
            nn.GELU(),
            nn.AdaptiveAvgPool2d(3),
            nn.Flatten(),
            nn.Linear(18 * width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, 2 * (NOTHING + 1)),
        )

    def forward(self, image: Float[Tensor, "b 3 height width"]) -> tuple[Tensor, Tensor]:
        """Scores of the colour and of the shape in each cell."""
        if image.shape[2] % self.grid or image.shape[3] % self.grid:
            raise ValueError(
                f"A picture of {tuple(image.shape[2:])} pixels has no {self.grid} × {self.grid} even cells."
            )
        cells = rearrange(image, "b c (row y) (column x) -> (b row column) c y x", row=self.grid, column=self.grid)
        scores = self.layers(cells).unflatten(0, (len(image), -1))
        return scores[..., : NOTHING + 1], scores[..., NOTHING + 1 :]

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The cross-entropy of ``colour`` and of ``shape`` (b, cells) in ``image``."""
        scores = zip(("colour", "shape"), self(batch["image"]))
        return {name: F.cross_entropy(part.flatten(0, 1), batch[name].flatten()) for name, part in scores}

    @torch.no_grad()
    def read(self, image: Float[Tensor, "b 3 height width"]) -> tuple[Int[Tensor, "b cells"], Int[Tensor, "b cells"]]:
        """The likeliest colour and shape of each cell."""
        colour, shape = self(image)
        return colour.argmax(-1), shape.argmax(-1)


def true_cells(samples: Sequence[Any]) -> tuple[Int[Tensor, "b cells"], Int[Tensor, "b cells"]]:
    """The true colour and shape in each cell of these scenes."""
    grid = samples[0].layout.grid
    colour = torch.full((len(samples), grid**2), NOTHING)
    shape = colour.clone()
    for i, sample in enumerate(samples):
        for item in sample.objects:
            colour[i, item.cell], shape[i, item.cell] = COLOURS.index(item.colour), SHAPES.index(item.shape)
    return colour, shape


class SceneScores(NamedTuple):
    """Shares from 0 to 1, of objects that captions mention or of captions."""

    colour: float  # the object's colour is somewhere
    shape: float  # the object's shape is somewhere
    both: float  # in one cell
    objects: float  # this is so of all objects of a caption
    relation: float  # and they stand to each other as the caption says
    count: float  # as many cells are filled as the scene has objects


def scene_scores(colour: Int[Tensor, "b cells"], shape: Int[Tensor, "b cells"], samples: Sequence[Any]) -> SceneScores:
    """How well cells that were read show what the captions of these samples say."""
    rows = [_score(*row, sample) for *row, sample in zip(colour.tolist(), shape.tolist(), samples)]
    return SceneScores(*(torch.tensor(part, dtype=torch.float).mean().item() for part in zip(*rows)))


def image_scores(colour: Int[Tensor, "b cells"], shape: Int[Tensor, "b cells"], samples: Sequence[Any]) -> Tensor:
    """Of each picture whether all objects and the relation are right, (b,) of 0 and 1."""
    rows = [_score(*row, sample)[4] for *row, sample in zip(colour.tolist(), shape.tolist(), samples)]
    return torch.tensor(rows)


class ObjectScores(NamedTuple):
    """Shares from 0 to 1 of captions that name one object and its cell."""

    colour: float  # some cell has this colour
    shape: float  # some cell has this shape
    both: float  # in one cell
    position: float  # something is in the cell that the caption says
    right: float  # the object is there, and nothing anywhere else: the graph is the caption's


def object_scores(
    colour: Int[Tensor, "b cells"], shape: Int[Tensor, "b cells"], samples: Sequence[Any]
) -> ObjectScores:
    """How well cells that were read show the one object that each of these samples has.

    ``ValueError`` for a sample with another number of objects.
    """
    if counts := {len(sample.objects) for sample in samples} - {1}:
        raise ValueError(f"These scores are of scenes with one object, got one with {max(counts)}.")
    cell = torch.tensor([sample.objects[0].cell for sample in samples])[:, None]
    true_colour, true_shape = (part.gather(1, cell) for part in true_cells(samples))
    filled = (colour != NOTHING) | (shape != NOTHING)
    same_colour, same_shape = colour == true_colour, shape == true_shape
    both = same_colour & same_shape
    alone = both.gather(1, cell)[:, 0] & (filled.sum(1) == 1)
    shares = (same_colour.any(1), same_shape.any(1), both.any(1), filled.gather(1, cell)[:, 0], alone)
    return ObjectScores(*(share.float().mean().item() for share in shares))


def _score(colour: list[int], shape: list[int], sample: Any) -> tuple[float, ...]:
    """The six shares of one picture."""
    subject, relation, other = sample.relation
    wanted = [
        (COLOURS.index(item.colour), SHAPES.index(item.shape))
        for item in map(sample.objects.__getitem__, (subject, other))
    ]
    cells = list(zip(colour, shape))
    both = [one in cells for one in wanted]
    holds = all(both) and any(
        _stands(relation, i, j, sample.layout.grid)
        for i, one in enumerate(cells)
        for j, two in enumerate(cells)
        if (one, two) == tuple(wanted)
    )
    filled = sum(one != NOTHING or two != NOTHING for one, two in cells)
    of_each = (sum(one in part for one in wants) / 2 for part, wants in zip((colour, shape), zip(*wanted)))
    return *of_each, sum(both) / 2, float(all(both)), float(holds), float(filled == len(sample.objects))


def _stands(relation: str, subject: int, other: int, grid: int) -> bool:
    """Whether one cell stands to another as this relation says."""
    (row, column), (other_row, other_column) = divmod(subject, grid), divmod(other, grid)
    return {
        "left of": column < other_column,
        "right of": column > other_column,
        "above": row < other_row,
        "below": row > other_row,
    }[relation]
