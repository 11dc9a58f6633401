"""The recipe of ALIGN: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Image, Tokens
from mmlearn.models.contrastive.align import ALIGN, ALIGNConfig
from mmlearn.recipes import ITC, Recipe

RECIPE = Recipe(
    ALIGN,
    ALIGNConfig,
    reads=(Image(), Tokens()),
    learns=ITC,
    architecture="""
    image -> EfficientNet -> u [mean] -> !InfoNCE
    text -> BERT -> v [first token, projected] -> !InfoNCE
    """,
)
