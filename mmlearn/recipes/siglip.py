"""The recipe of SigLIP: what it reads, what it learns, and how that is measured."""

from dataclasses import replace

from mmlearn.data.fields import Image, Tokens
from mmlearn.models.contrastive.siglip import SigLIP, SigLIPConfig
from mmlearn.recipes import ITC, Recipe

RECIPE = Recipe(
    SigLIP,
    SigLIPConfig,
    reads=(Image(), Tokens(whole=True)),
    learns=replace(ITC, chance={"sigmoid": lambda config, batch: -config.bias}),  # of each pair that matches
    architecture="""
    image -> ViT -> u [attention pooling] -> !sigmoid loss [each pair: yes or no]
    text -> transformer -> v [last token] -> !sigmoid loss
    """,
)
