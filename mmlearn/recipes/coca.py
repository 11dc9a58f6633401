"""The recipe of CoCa: what it reads, what it learns, and how that is measured."""

from dataclasses import replace

from torch import Tensor

from mmlearn.data.fields import Image, Tokens
from mmlearn.models.captions.coca import CoCa, CoCaConfig
from mmlearn.recipes import ITC, LM, Recipe, ln, ln_batch


def ln_batch_weighted(config: CoCaConfig, batch: dict[str, Tensor]) -> float:
    """To find a partner among the batch's rows at random, with the weight of the contrast."""
    return config.contrast_weight * ln_batch(config, batch)


RECIPE = Recipe(
    CoCa,
    CoCaConfig,
    reads=(Image(), Tokens()),
    learns=(
        replace(ITC, chance={"itc": ln_batch_weighted}),
        replace(LM, chance={"lm": ln("vocab_size", "caption_weight")}),
    ),
    writes=True,
    architecture="""
    image -> ViT -> caption pooler [many queries] -> contrast pooler [one query] -> u -> !contrast
    words -> unimodal half [causal, no picture] -> v [class token, last] -> !contrast
    unimodal half -> multimodal half [causal, looks at queries] -> !captioning
    caption pooler -> multimodal half
    """,
)
