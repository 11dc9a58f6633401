"""The recipe of VL-BERT: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Regions, Tokens
from mmlearn.models.fusion.vl_bert import VLBERT, VLBERTConfig
from mmlearn.recipes import MLM, MRM, Recipe

RECIPE = Recipe(
    VLBERT,
    VLBERTConfig,
    reads=(Tokens(), Regions()),
    learns=(MLM, MRM),
    architecture="""
    words -> token and visual feature [of every element] -> BERT [one sequence] -> !MLM
    *detector [not trained] -> regions -> token and visual feature
    BERT -> !MRC
    """,
)
