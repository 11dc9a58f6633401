"""The recipe of OFA: what it reads, what it learns, and how that is measured."""

from mmlearn.models.many_tasks.ofa import OFA, OFAConfig
from mmlearn.recipes import Recipe
from mmlearn.recipes.shared.unified_vocabulary import ALL_TASKS, READS

RECIPE = Recipe(
    OFA,
    OFAConfig,
    reads=READS,
    learns=ALL_TASKS,
    writes=True,
    architecture="""
    image -> residual network -> encoder [both ways] -> decoder [causal] -> !words, positions and codes
    instruction -> encoder
    target [one position later] -> decoder
    """,
)
