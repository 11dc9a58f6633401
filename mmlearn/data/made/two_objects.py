"""Scenes of two objects on a 2 × 2 grid, for systems that draw: small pictures, of which the caption says everything.

Colours, shapes, relations, grounds and splits are those of ``scenes``. All objects are solid and large, and the caption
tells them by colour and shape alone: "a red circle above a blue star". The two share neither. At 24 pixels an object is
as large as in a scene of 48.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch

from mmlearn.data.hashing import stream, uniform
from mmlearn.data.made.rendered import Rendered
from mmlearn.data.made.scenes import SIZES, SPLITS, TEXTURES, Layout, SceneSample, attributes, draw, lay_out, relate

GRID = 2  # rows and columns


@dataclass(frozen=True)
class TwoObjectLayout(Layout):
    """A :class:`Layout` of two objects in four cells."""

    grid: ClassVar[int] = GRID


def lay_out_two(split: str, index: np.ndarray, seed: int) -> TwoObjectLayout:
    """Decide everything about these scenes. Colours and shapes are those of ``Scenes(objects=2)``."""
    layout = lay_out(split, index, seed, objects=2)
    numbers = uniform(stream("two objects", split, seed), index, GRID**2 + 1)
    cell, axis = numbers[:, :-1].argsort(1)[:, :2], numbers[:, -1]
    parts = {
        name: value[:, :2] if name in ("colour", "shape", "jitter") else value for name, value in vars(layout).items()
    }
    made = TwoObjectLayout(**parts)
    return replace(
        made,
        cell=cell,
        size=np.full(cell.shape, tuple(SIZES).index("large")),
        texture=np.full(cell.shape, tuple(TEXTURES).index("solid")),
        relation=relate(*np.take_along_axis(cell, layout.mentioned, 1).T, GRID, axis),
    )


@dataclass(frozen=True, repr=False)
class TwoObjectSample(SceneSample):
    """A scene whose caption tells objects by colour and shape."""

    @cached_property
    def _names(self) -> tuple[str, str]:
        return tuple(
            " ".join(attributes(self.layout, self.row, k)[2:]) for k in self.layout.mentioned[self.row].tolist()
        )


class TwoObjects(Rendered):
    """Scenes of two objects. Raises ``ValueError`` as :class:`Rendered` does."""

    name, splits = "two-objects", SPLITS

    def __init__(self, split: str = "train", *, size: int = 24, seed: int = 0, length: int = 1_000_000):
        super().__init__(split, size=size, seed=seed, length=length)

    def _render(self, index: np.ndarray) -> list[TwoObjectSample]:
        layout = lay_out_two(self.split, index, self.seed)
        return [TwoObjectSample(image, layout, i) for i, image in enumerate(torch.from_numpy(draw(layout, self.size)))]
