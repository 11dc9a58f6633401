"""The recipe of BLIP: what it reads, what it learns, and how that is measured."""

from dataclasses import replace

from mmlearn.data.fields import Image, Tokens
from mmlearn.models.align.blip import BLIP, BLIPConfig
from mmlearn.recipes import ITC, ITM_OWN_NEGATIVES, LM, Recipe, ln_batch_and_queue

RECIPE = Recipe(
    BLIP,
    BLIPConfig,
    reads=(Image(), Tokens()),
    learns=(replace(ITC, chance={"itc": ln_batch_and_queue}), ITM_OWN_NEGATIVES, LM),
    writes=True,
    architecture="""
    image -> ViT -> u [class token] -> !ITC
    text -> text encoder -> v [class token] -> !ITC
    ViT -> grounded encoder [looks at patches] -> !ITM
    ViT -> decoder [causal, looks at patches] -> !LM
    text -> grounded encoder
    text -> decoder
    text encoder == grounded encoder
    grounded encoder == decoder
    ViT ~> momentum encoders
    text encoder ~> momentum encoders -> queue -> !ITC
    """,
)
