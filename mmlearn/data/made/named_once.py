"""Crowded scenes in which every object has a name of its own without its colour, for questions about a hidden colour.

Objects, grid, captions and splits are those of ``crowded-scenes``. But no two objects are alike in size, texture and
shape, and colours are drawn for each object by itself. So "a small solid <mask> heart" means one object, and neither
the rest of the caption nor any other object tells its colour: for as many as 32 objects it asks what
``Scenes(objects=n)`` asks for up to nine.
"""

from dataclasses import replace

import numpy as np
import torch

from mmlearn.data.hashing import stream, uniform
from mmlearn.data.made.crowded_scenes import MOST, CrowdedLayout, CrowdedSample, CrowdedScenes, lay_out_crowd
from mmlearn.data.made.scenes import COLOURS, HELD_OUT, SHAPES, SIZES, TEXTURES, draw

STYLES = len(SIZES) * len(TEXTURES)
NEVER = np.array([colour for colour, _ in sorted(HELD_OUT, key=lambda pair: pair[1])])  # the colour of no such shape


def lay_out_named_once(split: str, index: np.ndarray, seed: int, objects: int | None = None) -> CrowdedLayout:
    """A crowded layout with other objects in its places."""
    layout = lay_out_crowd(split, index, seed, objects)
    names = len(SHAPES) * STYLES
    numbers = uniform(stream("named once", split, seed), index, names + MOST)
    shape, style = np.divmod(numbers[:, :names].argsort(1)[:, :MOST], STYLES)
    others = 1 + (numbers[:, names:] * (len(COLOURS) - 1)).astype(int)
    if split == "composition":
        others[:, 0] = 0  # object 0 is mentioned
    colour = (NEVER[shape] + others) % len(COLOURS)
    return replace(layout, colour=colour, shape=shape, size=style // len(TEXTURES), texture=style % len(TEXTURES))


class NamedOnce(CrowdedScenes):
    """Scenes with 16 to 32 objects, or with ``objects`` of them, of which no two share size, texture and shape."""

    def _render(self, index: np.ndarray) -> list[CrowdedSample]:
        layout = lay_out_named_once(self.split, index, self.seed, self.objects)
        return [CrowdedSample(image, layout, i) for i, image in enumerate(torch.from_numpy(draw(layout, self.size)))]
