"""Frozen features: what a network that others trained on ImageNet says of each position of a picture, or of a box.

They are the first 14 blocks of MobileNetV2: 96 numbers for every 16 × 16 pixels, 6 × 6 positions at 96 pixels. Small
systems that read them learn within a minute or two what they would need an hour for from pixels. A network that nobody
trains needs to be asked only once, so the features are kept on disk.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from mmlearn.data.boxes import BoxDetector
from mmlearn.data.feature_cache import cached_features
from mmlearn.data.synthetic.regions import crop
from mmlearn.models.vision.backbone import Backbone

BLOCKS, STRIDE, WIDTH = 14, 16, 96
SAMPLES = 4  # a side, of which a box is the mean


@cache
def _network() -> Backbone:
    from mmlearn.pretrained.backbone import load_backbone

    return load_backbone()


@torch.no_grad()
def grid_features(images: Float[Tensor, "n 3 height width"], *, keep: bool = True) -> Float[Tensor, "n positions 96"]:
    """What MobileNetV2 says of each position, in reading order; pictures are from 0 to 1.

    The numbers of a position have mean 0 and variance 1. With ``keep`` they are read from disk where the same pictures
    were asked for before (:func:`~mmlearn.data.feature_cache.cached_features`). Raises ``ValueError`` for pictures of
    less than 32 pixels. Source: Sandler et al. 2018, "MobileNetV2", table 2.
    """
    if min(images.shape[2:]) < 2 * STRIDE:
        raise ValueError(f"Frozen features are of pictures of at least 32 pixels, got {tuple(images.shape[2:])}.")
    network = _network()
    blocks = network.features[:BLOCKS]

    def compute() -> dict[str, Tensor]:
        found = [blocks((part - network.mean) / network.std) for part in images.split(64)]
        grid = rearrange(torch.cat(found), "n d row column -> n (row column) d")
        return {"grid": F.layer_norm(grid, (WIDTH,)).half()}

    result = cached_features(compute, "grid of MobileNetV2", images, *blocks.parameters()) if keep else compute()
    return result["grid"].float()


def region_features(
    grid: Float[Tensor, "n positions 96"], boxes: Float[Tensor, "n things 4"]
) -> Float[Tensor, "n things 96"]:
    """The mean of a square grid in each box, given as shares of the picture: 4 × 4 bilinear samples of it.

    Source: He et al. 2017 (Mask R-CNN), section 3, RoIAlign.
    """
    return crop(as_channels(grid), boxes, 1, SAMPLES).flatten(2)  # (n, things, 96, 1, 1) → (n, things, 96)


def as_channels(grid: Float[Tensor, "n positions 96"]) -> Float[Tensor, "n 96 rows columns"]:
    """A square grid laid out as a picture of 96 channels, for towers whose patches are one pixel then."""
    return rearrange(grid, "n (row column) d -> n d row column", row=math.isqrt(grid.shape[1]))


def grid_of(samples: Sequence[Any]) -> Float[Tensor, "n positions 96"]:
    """The features of samples: those that they have as ``grid``, or else computed of their pictures."""
    if all(getattr(sample, "grid", None) is not None for sample in samples):
        return torch.stack([sample.grid for sample in samples])
    return grid_features(torch.stack([sample.image for sample in samples]), keep=False)


class GridDetector(BoxDetector):
    """A :class:`~mmlearn.data.boxes.BoxDetector` whose features are frozen ones, and do not hold the classes."""

    @property
    def region_width(self) -> int:
        """The width of a region's features."""
        return WIDTH

    def features(self, samples: Sequence[Any], boxes: Tensor, classes: Tensor) -> Tensor:
        """What MobileNetV2 says of each box, divided by 4 as the pixels of a ``BoxDetector`` are."""
        return region_features(grid_of(samples), boxes) / 4
