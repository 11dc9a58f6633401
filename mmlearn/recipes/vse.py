"""The recipe of VSE++: what it reads, what it learns, and how that is measured."""

from dataclasses import replace

from mmlearn.data.fields import Image, Tokens
from mmlearn.models.contrastive.vse import VSE, VSEConfig
from mmlearn.pretrained.backbone import load_backbone
from mmlearn.recipes import ITC, Recipe, hinge_at_equal_similarity

RECIPE = Recipe(
    VSE,
    VSEConfig,
    reads=(Image(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)), Tokens()),
    learns=replace(ITC, chance={"hinge": hinge_at_equal_similarity}),
    build=lambda config: VSE(config, load_backbone()),  # which normalises pictures itself
    architecture="""
    image -> *picture network [frozen] -> u [projected] -> !ranking hinge [hardest negative]
    text -> GRU -> v [last state] -> !ranking hinge
    """,
)
