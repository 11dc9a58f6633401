"""The recipe of ViLBERT: what it reads, what it learns, and how that is measured."""

from dataclasses import replace

from mmlearn.data.fields import Regions, Tokens
from mmlearn.models.fusion.vilbert import ViLBERT, ViLBERTConfig
from mmlearn.recipes import ITM, MLM, MRM, Recipe, uniform_classes

RECIPE = Recipe(
    ViLBERT,
    ViLBERTConfig,
    reads=(Tokens(), Regions()),
    learns=(ITM, MLM, replace(MRM, chance={"mrc_kl": uniform_classes})),
    architecture="""
    words -> text blocks -> co-attention layers [each stream attends to the other] -> !MLM
    *detector [not trained] -> regions -> visual blocks -> co-attention layers -> !ITM
    co-attention layers -> !MRC-kl
    """,
)
