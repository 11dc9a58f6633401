"""The recipe of TFN: what it reads, what it learns, and how that is measured."""

from mmlearn.models.classic_fusion.tfn import TFN, TFNConfig
from mmlearn.recipes import Recipe
from mmlearn.recipes.shared.cues import CLASSES, READS

RECIPE = Recipe(
    TFN,
    TFNConfig,
    reads=READS,
    learns=CLASSES,
    architecture="""
    first cue -> first encoder -> outer product -> hidden layer -> !classes
    second cue -> second encoder -> outer product
    """,
)
