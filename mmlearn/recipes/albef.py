"""The recipe of ALBEF: what it reads, what it learns, and how that is measured."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlearn.data.fields import Image, Tokens
from mmlearn.evaluation.grounding import grad_cam
from mmlearn.evaluation.measures import pointing
from mmlearn.evaluation.mentions import Mentions
from mmlearn.layers import record_attention
from mmlearn.models.align.albef import ALBEF, ALBEFConfig
from mmlearn.recipes import ITC, ITM_OWN_NEGATIVES, MLM, Recipe, ln_batch_and_queue

ROWS = 64  # read at a time, because maps have a graph


def phrase_maps(run: Any, batch: dict[str, Tensor], mentions: Mentions) -> Float[Tensor, "n p"]:
    """Grad-CAM of the match for the last token of each phrase, in the middle block of the fusion, the earlier of two.

    Source: Li et al. 2021 (ALBEF), figure 4, where it is the third of six.
    """
    system, found = run.system, []
    layer = system.cross_attention[(system.config.fusion_depth - 1) // 2]
    inputs = [batch[name].split(ROWS) for name in ("image", "tokens", "mask")]
    for image, tokens, mask in zip(*inputs):
        with torch.enable_grad(), record_attention(system) as maps:
            logits = system.match(image, tokens, mask)
            found.append(grad_cam({layer: maps[layer]}, logits[:, 1] - logits[:, 0])[layer])  # (b, t, p)
    classes = int(system.config.image.class_token)
    return mentions.select(torch.cat(found)[..., classes:])


RECIPE = Recipe(
    ALBEF,
    ALBEFConfig,
    reads=(Image(), Tokens()),
    learns=(
        replace(ITC, chance={"itc": ln_batch_and_queue}),
        replace(ITM_OWN_NEGATIVES, measures=(*ITM_OWN_NEGATIVES.measures, pointing(phrase_maps))),
        MLM,
    ),
    architecture="""
    image -> ViT -> u [class token] -> !ITC
    text -> BERT, first half -> v [class token] -> !ITC
    ViT -> BERT, second half [looks at patches] -> !ITM
    BERT, first half -> BERT, second half -> !MLM
    ViT ~> momentum encoders
    BERT, first half ~> momentum encoders -> queue -> !ITC
    """,
)
