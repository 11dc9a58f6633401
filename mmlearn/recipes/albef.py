"""The recipe of ALBEF: what it reads, what it learns, and how that is measured."""

from dataclasses import replace

from mmlearn.data.fields import Image, Tokens
from mmlearn.models.align.albef import ALBEF, ALBEFConfig
from mmlearn.recipes import ITC, ITM_OWN_NEGATIVES, MLM, Recipe, ln_batch_and_queue

RECIPE = Recipe(
    ALBEF,
    ALBEFConfig,
    reads=(Image(), Tokens()),
    learns=(replace(ITC, chance={"itc": ln_batch_and_queue}), ITM_OWN_NEGATIVES, MLM),
    architecture="""
    image -> ViT -> u [class token] -> !ITC
    text -> BERT, first half -> v [class token] -> !ITC
    ViT -> BERT, second half [looks at patches] -> !ITM
    BERT, first half -> BERT, second half -> !MLM
    ViT ~> momentum encoders
    BERT, first half ~> momentum encoders -> queue -> !ITC
    """,
)
