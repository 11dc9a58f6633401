"""The recipe of GIT: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Image, Tokens
from mmlearn.models.captions.git import GIT, GITConfig
from mmlearn.recipes import LM, Recipe

RECIPE = Recipe(
    GIT,
    GITConfig,
    reads=(Image(), Tokens()),
    learns=LM,
    writes=True,
    architecture="""
    image -> ViT -> projection -> transformer [patches both ways, words causal] -> !LM
    words -> transformer
    """,
)
