"""Scenes of two objects of few kinds, each with a question, for networks that must learn them in a minute.

Only every third colour and shape is used (or every second, …), so that there are ``kinds`` of each, and the two objects
differ in both. Everything else is that of :mod:`mmlearn.data.made.two_objects`. But with fewer than twelve kinds
nothing is held out of ``train``, because several pairs of colour and shape become one.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from mmlearn.data.made.questions import KINDS, Question
from mmlearn.data.made.scenes import COLOURS, draw
from mmlearn.data.made.two_objects import TwoObjectLayout, TwoObjectSample, lay_out_two


@dataclass(frozen=True, repr=False)
class AskedSample(TwoObjectSample):
    """A scene with a question about the colour or the shape in a cell."""

    @cached_property
    def question(self) -> Question:
        """What is asked, and the answer."""
        bits = int(self.layout.question_bits[self.row])
        kind = ("colour", "shape")[bits % 2]
        return Question(kind, *KINDS[kind](self.objects, self.graph, bits // 2))


def step_of(kinds: int) -> int:
    """Every which colour and shape is used. ``ValueError`` for ``kinds`` that do not divide the twelve, or for one."""
    if kinds < 2 or len(COLOURS) % kinds:
        raise ValueError(f"Of twelve colours and shapes 2, 3, 4, 6 or 12 kinds are used; got {kinds}.")
    return len(COLOURS) // kinds


def lay_out_few(split: str, count: int, kinds: int, seed: int) -> TwoObjectLayout:
    """Decide everything about ``count`` scenes of so many ``kinds``. ``ValueError`` as in :func:`step_of`."""
    step = step_of(kinds)
    layout = lay_out_two(split, np.arange(4 * count + 400), seed)
    layout = replace(layout, colour=layout.colour // step * step, shape=layout.shape // step * step)
    differ = (layout.colour[:, 0] != layout.colour[:, 1]) & (layout.shape[:, 0] != layout.shape[:, 1])
    return layout.part(np.flatnonzero(differ)[:count])


def few_kinds(split: str, count: int, *, kinds: int, size: int, seed: int) -> list[AskedSample]:
    """``count`` scenes of so many ``kinds``, at ``size`` pixels a side. ``ValueError`` as in :func:`step_of`."""
    layout = lay_out_few(split, count, kinds, seed)
    return [AskedSample(image, layout, i) for i, image in enumerate(torch.from_numpy(draw(layout, size)))]
