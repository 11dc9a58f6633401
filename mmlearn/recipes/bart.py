"""The recipe of BART: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Tokens
from mmlearn.models.text.bart import BART, BARTConfig
from mmlearn.recipes import INFILLING, Recipe

RECIPE = Recipe(
    BART,
    BARTConfig,
    reads=(Tokens(),),
    learns=INFILLING,
    writes=True,
    architecture="""
    corrupted words -> sum [token, position] -> encoder -> decoder [causal] -> language head -> !infilling
    target [shifted right] -> target sum [token, position] -> decoder
    sum == target sum
    """,
)
