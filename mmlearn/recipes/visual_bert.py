"""The recipe of VisualBERT: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Regions, Tokens
from mmlearn.models.fusion.visual_bert import VisualBERT, VisualBERTConfig
from mmlearn.recipes import ITM, MLM, Recipe

RECIPE = Recipe(
    VisualBERT,
    VisualBERTConfig,
    reads=(Tokens(), Regions()),
    learns=(ITM, MLM),
    architecture="""
    words -> sum [token, type, position] -> BERT [one sequence] -> !MLM
    regions -> sum of a region [features, type] -> BERT -> !ITM
    *detector [not trained] -> regions
    """,
)
