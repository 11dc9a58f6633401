"""Scenes of one object on a 2 × 2 grid, for small drawing networks: "a red circle at the upper left".

Colours, shapes, grounds and splits are those of ``scenes``; an object is solid and large, as in the scenes of two
objects (:mod:`mmlearn.data.made.two_objects`), of which these are the first object alone.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from mmlearn.data.made.scenes import Link, draw
from mmlearn.data.made.two_objects import TwoObjectLayout, TwoObjectSample, lay_out_two

PLACES = ("upper left", "upper right", "lower left", "lower right")


@dataclass(frozen=True, repr=False)
class OneObjectSample(TwoObjectSample):
    """A scene whose caption says the colour, the shape and the place of its one object. It states no relation."""

    @cached_property
    def caption(self) -> str:
        """What is where."""
        return f"a {self._names[0]} at the {PLACES[self.objects[0].cell]}"

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """Which characters of the caption name the object."""
        return (Link(2, 2 + len(self._names[0]), 0),)

    @property
    def relations(self) -> tuple[tuple[int, str, int], ...]:
        """None, because there is nothing else."""
        return ()


def lay_out_one(split: str, index: np.ndarray, seed: int) -> TwoObjectLayout:
    """Decide everything about these scenes: those of ``lay_out_two`` without the second object."""
    layout = lay_out_two(split, index, seed)
    parts = {name: getattr(layout, name)[:, :1] for name in ("colour", "shape", "size", "texture", "cell", "jitter")}
    alone = np.zeros((len(index), 2), int)
    return replace(layout, **parts, mentioned=alone, count=np.ones(len(index), int))


def one_object_samples(layout: TwoObjectLayout, size: int) -> list[OneObjectSample]:
    """The scenes of a layout, drawn at ``size`` pixels a side."""
    return [OneObjectSample(image, layout, i) for i, image in enumerate(torch.from_numpy(draw(layout, size)))]
