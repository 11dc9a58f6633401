"""The recipe of CLIP: what it reads, what it learns, and how that is measured."""

from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mmlearn.data.fields import Image, Tokens
from mmlearn.evaluation.measures import occlusion, pointing
from mmlearn.evaluation.mentions import Mentions
from mmlearn.models.contrastive.clip import CLIP, CLIPConfig
from mmlearn.recipes import ITC, Recipe


def phrase_maps(run: Any, batch: dict[str, Tensor], mentions: Mentions) -> Float[Tensor, "n p"] | None:
    """What each patch adds to the similarity with a phrase by itself, which max pooling divides among patches."""
    if run.system.config.pooling != "max":
        return None
    tokens, mask = (part.to(run.device) for part in run.tokenizer([f"a {phrase}" for phrase in mentions.phrase]))
    return run.system.contributions(batch["image"][mentions.sample], run.system.encode_text(tokens, mask))


RECIPE = Recipe(
    CLIP,
    CLIPConfig,
    reads=(Image(), Tokens()),
    learns=replace(ITC, measures=(*ITC.measures, pointing(phrase_maps), occlusion)),
    architecture="""
    image -> ViT -> u [class token] -> !InfoNCE
    text -> transformer [causal] -> v [last token] -> !InfoNCE
    """,
)
