"""The recipe of T5: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Tokens
from mmlearn.models.text.t5 import T5, T5Config
from mmlearn.recipes import SPANS, Recipe

RECIPE = Recipe(
    T5,
    T5Config,
    reads=(Tokens(sentinels=16),),
    learns=SPANS,
    writes=True,
    architecture="""
    masked words -> token table -> encoder -> decoder [causal, attends to words] -> language head -> !spans
    target [shifted right] -> target table -> decoder
    token table == target table
    """,
)
