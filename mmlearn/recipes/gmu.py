"""The recipe of GMU: what it reads, what it learns, and how that is measured."""

from mmlearn.models.classic_fusion.gmu import GMU, GMUConfig
from mmlearn.recipes import Recipe
from mmlearn.recipes.shared.cues import CLASSES, READS

RECIPE = Recipe(
    GMU,
    GMUConfig,
    reads=READS,
    learns=CLASSES,
    architecture="""
    first cue -> first projection -> gated sum -> hidden layer -> !classes
    second cue -> second projection -> gated sum
    first cue -> gate -> gated sum
    second cue -> gate
    """,
)
