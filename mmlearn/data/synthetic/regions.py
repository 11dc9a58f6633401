"""Regions of a scene, as a detector would hand them over, for systems that read regions instead of pixels.

The boxes are exact, the features are what the boxes hold, and the classes are as good as you ask for.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from mmlearn.data.hashing import stream, uniform
from mmlearn.data.synthetic.layouts import CELL, COLOURS, RADII, SHAPES, Layout

CLASSES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)  # colour × 12 + shape


class SceneDetector:
    r"""The regions of each scene: one per object, in reading order, so that links' object numbers count regions.

    ``regions`` (b, p, 3 · width² + 24) are features as of a detector's last layer, from which its classes are read
    linearly: the pixels in each box, resized by RoIAlign to ``width`` × ``width``, moved by -0.3, about their mean, and
    divided by 4; behind them :math:`\frac{3}{2} (P - \frac{1}{12})` of each colour and of each shape. ``boxes``
    (b, p, 4) are left, top, right and bottom as shares of the picture; ``region_mask`` (b, p) is False where a picture
    has fewer objects than another; ``region_classes`` (b, p, 144) are probabilities of :data:`CLASSES`. The detector
    doubts colour and shape apart:

    .. math:: P(\text{colour}, \text{shape}) = P(\text{colour})\, P(\text{shape})

    each with 0.8 to 1 at what it takes for true. That is the truth, or with probability ``error_rate`` any of the 143
    other classes, and then as sure. Doubts and errors belong to the scene: they are the same each time it is seen, in
    any batch and at any picture size, and others for another ``seed``.

    Raises ``ValueError`` for samples that are no scenes or none at all, a share outside 0 to 1, or a width below 1.
    Source: Anderson et al. 2018, "Bottom-Up and Top-Down Attention", section 3.1; He et al. 2017 (Mask R-CNN), section
    3, for RoIAlign.
    """

    def __init__(self, error_rate: float = 0.0, width: int = 8, seed: int = 0):
        if not 0 <= error_rate <= 1:
            raise ValueError(f"error_rate is a share from 0 to 1, got {error_rate}.")
        if width < 1:
            raise ValueError(f"A region is at least 1 pixel wide, got width={width}.")
        self.error_rate, self.width, self.seed = error_rate, width, seed

    @property
    def region_width(self) -> int:
        """The width of a region's features."""
        return 3 * self.width**2 + len(COLOURS) + len(SHAPES)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of what it tells apart."""
        return CLASSES

    def __repr__(self) -> str:
        return f"SceneDetector(error_rate={self.error_rate}, width={self.width}, seed={self.seed})"

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        layout, side = _in_reading_order(samples), samples[0].image.shape[-1]
        real = np.arange(layout.cell.shape[1]) < layout.count[:, None]  # (b, p)
        middle, half = (position(slice(None), side) / side for position in (layout.middles, layout.extents))
        boxes = np.concatenate([middle - half, middle + half], -1).clip(0, 1) * real[..., None]
        boxes = torch.from_numpy(boxes.astype(np.float32))
        of_colour, of_shape = (torch.from_numpy(part) for part in self._beliefs(samples, layout))
        largest = 2 * RADII.max() * layout.frame(side)[0] / CELL
        pixels = crop(torch.stack([sample.image for sample in samples]), boxes, self.width, largest) - 0.3
        regions = torch.cat([pixels.flatten(2), 6 * (of_colour - 1 / 12), 6 * (of_shape - 1 / 12)], dim=-1) / 4
        real = torch.from_numpy(real)
        return {
            "regions": regions * real[..., None],
            "boxes": boxes,
            "region_mask": real,
            "region_classes": einsum(of_colour, of_shape, "b p c, b p s -> b p c s").flatten(2) * real[..., None],
        }

    def tags(self, samples: Sequence[Any]) -> list[list[str]]:
        """The name of the likeliest class of each region, without a look at the pixels."""
        layout = _in_reading_order(samples)
        of_colour, of_shape = self._beliefs(samples, layout)
        believed = of_colour.argmax(-1) * len(SHAPES) + of_shape.argmax(-1)
        return [[CLASSES[number] for number in row[:real]] for row, real in zip(believed, layout.count)]

    def _beliefs(self, samples: Sequence[Any], layout: Layout) -> tuple[np.ndarray, np.ndarray]:
        """The distributions over colours and over shapes of each object, (b, p, 12) both."""
        keys, (b, p), c, s = scene_keys(samples), layout.colour.shape, len(COLOURS), len(SHAPES)
        # Each object has its own numbers, however many there are beside it.
        where = (keys[:, None] + np.arange(p, dtype=np.uint64)).ravel()
        numbers = uniform(stream("detector", self.seed), where, 4 + c + s).reshape(b, p, -1)
        wrong, other, sure, doubt = numbers[..., 0], numbers[..., 1], numbers[..., 2:4], numbers[..., 4:]
        believed = layout.colour * s + layout.shape
        mistaken = (believed + 1 + (other * (c * s - 1)).astype(int)) % (c * s)
        believed = np.where(wrong < self.error_rate, mistaken, believed)
        of_colour = _peaked(np.eye(c, dtype=np.float32)[believed // s], sure[..., :1], doubt[..., :c])
        of_shape = _peaked(np.eye(s, dtype=np.float32)[believed % s], sure[..., 1:], doubt[..., c:])
        return of_colour, of_shape


def _peaked(one_hot: np.ndarray, sure: np.ndarray, doubt: np.ndarray) -> np.ndarray:
    """0.8 to 1 at the one, and the rest divided among the others in proportion to ``doubt``."""
    peak, rest = 0.8 + 0.2 * sure, doubt * (1 - one_hot)
    return peak * one_hot + (1 - peak) * rest / rest.sum(-1, keepdims=True).clip(1e-6)


def crop(
    image: Float[Tensor, "b c size size"], boxes: Float[Tensor, "b p 4"], width: int, largest: float
) -> Float[Tensor, "b p c width width"]:
    """What each box (as shares of the picture) holds, ``width`` × ``width``: each bin is the mean of bilinear samples.

    A bin has as many samples a side as the ``largest`` box, so many pixels wide, has pixels in it, rounded up, so that
    no pixel is passed over.
    Source: He et al. 2017 (Mask R-CNN), section 3, RoIAlign.
    """
    b, p = boxes.shape[:2]
    side = width * math.ceil(largest / width)
    steps = (torch.arange(side) + 0.5) / side
    left, top, right, bottom = boxes[..., None].unbind(2)  # (b, p, 1)
    x, y = left + steps * (right - left), top + steps * (bottom - top)
    grid = torch.stack(torch.broadcast_tensors(x[:, :, None, :], y[:, :, :, None]), -1)  # (b, p, side, side, 2)
    samples = F.grid_sample(image, grid.view(b, p * side, side, 2) * 2 - 1, padding_mode="border", align_corners=False)
    return F.avg_pool2d(samples, side // width).unflatten(2, (p, width)).transpose(1, 2)


def scene_keys(samples: Iterable[Any]) -> np.ndarray:
    """A 64-bit number for each scene, made of all that its layout says: what stands where, and what is said of it."""
    return np.array([sample.layout.key(sample.row) for sample in _checked(samples)], np.uint64)


def _in_reading_order(samples: Sequence[Any]) -> Layout:
    """One layout of these samples, with as many objects as the fullest has, in reading order."""
    layouts = [(sample.layout, sample.row) for sample in _checked(samples)]
    rows = {name: np.stack([getattr(one, name)[row] for one, row in layouts]) for name in layouts[0][0].arrays()}
    layout = replace(layouts[0][0], **rows)
    return layout.objects(layout.reading_order()[:, : layout.count.max()])


def _checked(samples: Iterable[Any]) -> list[Any]:
    samples = list(samples)
    if not samples:
        raise ValueError("A batch holds at least one scene, got none.")
    if stranger := next((sample for sample in samples if not hasattr(sample, "layout")), None):
        raise ValueError(
            f"Only scenes know what stands where; got {type(stranger).__name__}. Use the data set 'scenes', or a "
            "detector of your own."
        )
    return samples
