"""The recipe of Unified-IO: what it reads, what it learns, and how that is measured."""

from dataclasses import replace

from mmlearn.models.many_tasks.unified_io import UnifiedIO, UnifiedIOConfig
from mmlearn.recipes import OneOf, Recipe, ln
from mmlearn.recipes.shared.unified_vocabulary import ALL_TASKS, INFILLING, READS

# Words and locations have a softmax of their own, and so have codes.
WORDS, CODES = {"tokens": ln("first_code")}, {"tokens": ln("codes")}
RECIPE = Recipe(
    UnifiedIO,
    UnifiedIOConfig,
    reads=READS,
    learns=OneOf(*(replace(task, chance=CODES if task is INFILLING else WORDS) for (task,) in ALL_TASKS.tasks)),
    writes=True,
    architecture="""
    image -> patches -> encoder -> decoder [causal] -> !words and locations
    decoder -> !codes
    instruction -> sum [token, position, type] -> encoder
    target [one position later] -> decoder
    """,
)
