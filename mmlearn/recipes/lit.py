"""The recipe of LiT: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Image, Tokens
from mmlearn.models.contrastive.lit import LiT, LiTConfig
from mmlearn.pretrained.backbone import load_backbone
from mmlearn.recipes import ITC, Recipe

RECIPE = Recipe(
    LiT,
    LiTConfig,
    reads=(Image(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)), Tokens()),
    learns=ITC,
    build=lambda config: LiT(config, load_backbone()),  # which normalises pictures itself
    architecture="""
    image -> *image tower [frozen] -> u -> !InfoNCE
    text -> transformer -> v -> !InfoNCE
    """,
)
