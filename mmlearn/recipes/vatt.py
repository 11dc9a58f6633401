"""The recipe of VATT: what it reads, what it learns, and how that is measured."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from mmlearn.data.fields import Tokens, Video, Waveform
from mmlearn.evaluation.measures import encode_modality, retrieval
from mmlearn.models.trimodal.vatt import VATT, VATTConfig
from mmlearn.recipes import Objective, Recipe


def embedding(space: int, system: Any, batch: dict[str, Tensor], modality: str, call: Callable) -> Tensor:
    """Videos lie in two spaces: that of sounds (0) and that of texts (1)."""
    found = encode_modality(system, batch, modality, call)
    return found[space] if modality == "video" else found


RECIPE = Recipe(
    VATT,
    VATTConfig,
    reads=(Video(fps=10, image_size=64, frames=8), Waveform(standard=False), Tokens()),
    learns=Objective(
        "nce",
        dict.fromkeys(("nce", "mil_nce"), lambda config, batch: math.log(2 * len(batch["video"]) - 1)),
        measures=(
            retrieval("video", "audio", partial(embedding, 0)),
            retrieval("video", "text", partial(embedding, 1)),
        ),
    ),
    architecture="""
    video -> boxes of pixels -> DropToken -> video transformer -> z [space of sound] -> !NCE
    waveform -> windows -> DropToken of sound -> audio transformer -> a -> !NCE
    z -> z' [space of text] -> !MIL-NCE
    text -> text transformer -> v -> !MIL-NCE
    """,
)
