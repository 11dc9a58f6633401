"""Scenes of two objects of few kinds, each with its own width, height and place in its cell.

Who knows the cell of an object does not know its box, as he does in :mod:`mmlearn.data.made.few_kinds`, whose colours,
shapes, captions, questions and splits these are.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Integer
from torch import Tensor

from mmlearn.data.made import drawing
from mmlearn.data.made.few_kinds import AskedSample, lay_out_few, step_of
from mmlearn.data.made.scenes import COLOURS, SHAPES, SPLITS, SceneObject
from mmlearn.data.made.two_objects import GRID, TwoObjectLayout

FINE = 3  # points a pixel, each way


@dataclass(frozen=True, repr=False)
class VariedSample(AskedSample):
    """A scene of ``kinds`` colours and shapes, whose objects are as wide and as high as their ``ovals`` say.

    All of them are called large, as in the layout.
    """

    ovals: Float64[np.ndarray, "n 2 4"]  # the middle of each object and half of its size, in pixels
    kinds: int

    @property
    def known(self) -> tuple[str, ...]:
        """All names that there are."""
        return known_names(self.kinds)

    @cached_property
    def objects(self) -> tuple[SceneObject, ...]:
        """The objects, in reading order, with their own boxes."""
        found = []
        for number, item in zip(self._order, super().objects):
            x, y, across, down = self.ovals[self.row, number].tolist()
            found.append(replace(item, centre=(x, y), box=(x - across, y - down, x + across, y + down)))
        return tuple(found)

    @property
    def names(self) -> tuple[str, ...]:
        """What is in each of the ``boxes``: a colour and a shape, one of ``known``."""
        return tuple(f"{item.colour} {item.shape}" for item in self.objects)

    @cached_property
    def masks(self) -> Bool[Tensor, "objects size size"]:
        """Which pixels each object covers by at least half."""
        size = self.image.shape[-1]
        masks = torch.zeros(len(self._order), size, size, dtype=torch.bool)
        for mask, item, oval in zip(masks, self.objects, self.ovals[self.row, self._order]):
            cover = _cover(item.shape, oval[None], np.array([item.cell]), self.layout.frame(size)[0])
            mask[self._cell(item.cell)] = torch.from_numpy(cover[0] >= 0.5)
        return masks


def known_names(kinds: int) -> tuple[str, ...]:
    """Each colour with each shape, of so many kinds. ``ValueError`` as in :func:`step_of`."""
    step = step_of(kinds)
    return tuple(f"{colour} {shape}" for colour in COLOURS[::step] for shape in SHAPES[::step])


def varied_boxes(split: str, count: int, *, kinds: int, size: int, seed: int) -> list[VariedSample]:
    """``count`` scenes at ``size`` pixels a side; objects are two fifths to all of their cell wide, and high.

    ``ValueError`` as in :func:`~mmlearn.data.made.few_kinds.step_of`.
    """
    layout = lay_out_few(split, count, kinds, seed)
    numbers = np.random.default_rng([seed, SPLITS.index(split)]).random((2, count, 2, 2))
    half = layout.frame(size)[0] / 2
    radius = half * (0.4 + 0.6 * np.sin(np.pi / 2 * numbers[0]) ** 2)  # rather small or large than between
    cell = np.stack([layout.cell % GRID, layout.cell // GRID], -1)
    middle = (2 * cell + 1) * half + (2 * numbers[1] - 1) * (half - radius)
    ovals = np.concatenate([middle, radius], -1)
    images = torch.from_numpy(_drawn(layout, ovals, size))
    return [VariedSample(image, layout, i, ovals, kinds) for i, image in enumerate(images)]


def _drawn(layout: TwoObjectLayout, ovals: Float64[np.ndarray, "n 2 4"], size: int) -> Float32[np.ndarray, "n 3 s s"]:
    """The pictures: each object is its shape's rule, stretched over its box."""
    images, side = drawing.grounds(size)[layout.ground], layout.frame(size)[0]
    inner = slice(GRID * side)
    cells = images[:, :, inner, inner].reshape(len(images), 3, GRID, side, GRID, side)  # a view
    palette = np.array(list(drawing.COLOURS.values()), np.float32)
    for k in range(2):
        for shape in np.unique(layout.shape[:, k]):
            scene = np.flatnonzero(layout.shape[:, k] == shape)
            row, column = np.divmod(layout.cell[scene, k], GRID)
            cover = _cover(SHAPES[shape], ovals[scene, k], layout.cell[scene, k], side)[:, None]
            ground = cells[scene, :, row, :, column]
            paint = palette[layout.colour[scene, k], :, None, None]
            cells[scene, :, row, :, column] = ground + cover * (paint - ground)
    return images


def _cover(
    shape: str, ovals: Float64[np.ndarray, "n 4"], cell: Integer[np.ndarray, " n"], side: int
) -> Float32[np.ndarray, "n side side"]:
    """The share of each pixel of its cell that an object of this shape covers."""
    points = (np.arange(side * FINE) + 0.5) / FINE
    start = side * np.stack([cell % GRID, cell // GRID], 1)
    x, y = np.moveaxis((points - (ovals[:, :2] - start)[..., None]) / ovals[:, 2:, None], 1, 0)
    inside = drawing.SHAPES[shape](x[:, None, :], y[:, :, None])
    return inside.reshape(len(cell), side, FINE, side, FINE).mean((2, 4)).astype(np.float32)
