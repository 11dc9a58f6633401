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
    spoilt words -> sum [token, place] -> encoder -> decoder [causal, looks at words] -> language head -> !infilling
    target [one place later] -> target sum [token, place] -> decoder
    sum == target sum
    """,
)
