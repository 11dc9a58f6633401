"""Scenes of ``scenes-sound`` in which *instruments* play: named kinds of objects, each a colour and a shape."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from mmlearn.data.batches import fetch
from mmlearn.data.made.scene_sound import SoundScenes, SoundSceneSample
from mmlearn.data.made.scenes import COLOURS, SHAPES, lay_out

LOOKED_THROUGH = 20_000  # scenes at once


def scenes_with(
    instruments: Sequence[tuple[str, str]], split: str, count: int, *, both: bool, size: int = 64, seed: int = 0
) -> tuple[list[SoundSceneSample], Int[Tensor, "n 2"]]:
    """The first ``count`` scenes in which one of two objects is an instrument, or ``both`` are, and different ones.

    The objects sound at once, for a second. Beside the scenes, which instrument each object is, in the caption's order;
    -1 is none. Raises ``ValueError`` for an instrument that is no pair of a colour and a shape, and where none fits.
    """
    kind_of = torch.full((len(COLOURS), len(SHAPES)), -1)
    for i, (colour, shape) in enumerate(instruments):
        if colour not in COLOURS or shape not in SHAPES:
            raise ValueError(f"An instrument is a colour and a shape of scenes, not {colour!r} and {shape!r}.")
        kind_of[COLOURS.index(colour), SHAPES.index(shape)] = i
    picked, kinds, first = [], [], 0
    while len(picked) < count:
        index = torch.arange(first, first + LOOKED_THROUGH)
        layout = lay_out(split, index.numpy(), seed, 2)
        colour, shape, named = (torch.from_numpy(part) for part in (layout.colour, layout.shape, layout.mentioned))
        kind = kind_of[colour.gather(1, named), shape.gather(1, named)]
        fits = (kind >= 0).all(1) & (kind[:, 0] != kind[:, 1]) if both else (kind >= 0).any(1)
        if not fits.any():
            raise ValueError(f"Of {LOOKED_THROUGH} scenes of {split} none has such instruments: {[*instruments]}.")
        picked, kinds, first = picked + index[fits].tolist(), kinds + kind[fits].tolist(), first + LOOKED_THROUGH
    data = SoundScenes(split, size=size, seed=seed, objects=2, seconds=1.0, in_turn=False)
    return fetch(data, picked[:count]), torch.tensor(kinds[:count])
