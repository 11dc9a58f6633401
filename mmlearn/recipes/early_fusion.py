"""The recipe of early fusion: what it reads, what it learns, and how that is measured."""

from mmlearn.models.classic_fusion.early_fusion import EarlyFusion, EarlyFusionConfig
from mmlearn.recipes import Recipe
from mmlearn.recipes.shared.cues import CLASSES, READS

RECIPE = Recipe(
    EarlyFusion,
    EarlyFusionConfig,
    reads=READS,
    learns=CLASSES,
    architecture="""
    first cue -> concatenation -> hidden layer -> !classes
    second cue -> concatenation
    """,
)
