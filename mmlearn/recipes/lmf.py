"""The recipe of LMF: what it reads, what it learns, and how that is measured."""

from mmlearn.models.classic_fusion.lmf import LMF, LMFConfig
from mmlearn.recipes import Recipe
from mmlearn.recipes.shared.cues import CLASSES, READS

RECIPE = Recipe(
    LMF,
    LMFConfig,
    reads=READS,
    learns=CLASSES,
    architecture="""
    first cue -> first encoder -> low-rank product -> !classes
    second cue -> second encoder -> low-rank product
    """,
)
