"""Captions as the web has them: some belong to another picture, whatever the batch and the epoch."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from mmlearn.data.hashing import stream, uniform
from mmlearn.data.made.regions import scene_keys
from mmlearn.data.made.scenes import SceneSample, lay_out


def captions_with_errors(
    samples: Sequence[SceneSample], share: float, seed: int = 0
) -> tuple[list[str], Bool[Tensor, "n"]]:
    """The caption of each scene, and whether it is wrong: with probability ``share`` it is another scene's for good.

    Raises ``ValueError`` for a share outside 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is from 0 to 1, got {share}.")
    keys = scene_keys(samples)
    wrong = uniform(stream("wrong caption", seed), keys, 1)[:, 0] < share
    # The other scene depends on nothing but this scene and the seed.
    other = uniform(stream("other caption", seed), keys, 1)[:, 0]
    layout = lay_out("train", (other * 2**24).astype(np.int64), seed)
    captions = [
        SceneSample(sample.image, layout, row).caption if wrong[row] else sample.caption
        for row, sample in enumerate(samples)
    ]
    return captions, torch.from_numpy(wrong)
