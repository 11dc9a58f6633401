"""The recipe of FILIP: what it reads, what it learns, and how that is measured."""

from dataclasses import replace
from typing import Any

from einops import einsum
from jaxtyping import Float
from torch import Tensor

from mmlearn.data.fields import Image, Tokens
from mmlearn.evaluation.measures import occlusion, pointing
from mmlearn.evaluation.mentions import Mentions
from mmlearn.models.contrastive.filip import FILIP, FILIPConfig
from mmlearn.recipes import ITC, Recipe, ln_batch


def phrase_maps(run: Any, batch: dict[str, Tensor], mentions: Mentions) -> Float[Tensor, "n p"]:
    """The cosine of each patch with the last token of a phrase."""
    patches, words = run.system.encode_image(batch["image"]), run.system.encode_text(batch["tokens"], batch["mask"])
    return mentions.select(einsum(words, patches, "b t d, b p d -> b t p"))


RECIPE = Recipe(
    FILIP,
    FILIPConfig,
    reads=(Image(), Tokens(whole=True)),
    learns=replace(
        ITC, chance={"late_interaction": ln_batch}, measures=(*ITC.measures, pointing(phrase_maps), occlusion)
    ),
    architecture="""
    image -> ViT -> patch vectors -> late interaction [best patch of each word] -> !InfoNCE
    text -> transformer -> word vectors -> late interaction
    """,
)
