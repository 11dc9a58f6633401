"""The recipe of TFN: what it reads, what it learns, and how that is measured."""

from mmlearn.models.classic_fusion.tfn import TFN, TFNConfig
from mmlearn.recipes import Recipe
from mmlearn.recipes.shared.cues import LEARNS, READS

RECIPE = Recipe(
    TFN,
    TFNConfig,
    reads=READS,
    learns=LEARNS,
    architecture="""
    first cue -> first encoder -> outer product -> hidden layer -> !classes
    second cue -> second encoder -> outer product
    """,
)
