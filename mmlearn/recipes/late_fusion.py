"""The recipe of late fusion: what it reads, what it learns, and how that is measured."""

from mmlearn.models.classic_fusion.late_fusion import LateFusion, LateFusionConfig
from mmlearn.recipes import Recipe
from mmlearn.recipes.shared.cues import CLASSES, READS

RECIPE = Recipe(
    LateFusion,
    LateFusionConfig,
    reads=READS,
    learns=CLASSES,
    architecture="""
    first cue -> first classifier -> mean -> !classes
    second cue -> second classifier -> mean
    """,
)
