"""The recipe of Unified-IO: what it reads, what it learns, and how that is measured."""

from mmlearn.models.many_tasks.unified_io import UnifiedIO, UnifiedIOConfig
from mmlearn.recipes import Recipe
from mmlearn.recipes.shared.unified_vocabulary import ALL_TASKS, READS

RECIPE = Recipe(
    UnifiedIO,
    UnifiedIOConfig,
    reads=READS,
    learns=ALL_TASKS,
    writes=True,
    architecture="""
    image -> patches -> encoder -> decoder [causal] -> !words, positions and codes
    instruction -> sum [token, position] -> encoder
    target [one position later] -> decoder
    """,
)
