"""The recipe of OPT: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Tokens
from mmlearn.models.text.opt import OPT, OPTConfig
from mmlearn.recipes import LM, Recipe

RECIPE = Recipe(
    OPT,
    OPTConfig,
    reads=(Tokens(),),
    learns=LM,
    writes=True,
    architecture="""
    words -> sum [token, position] -> transformer [causal, ReLU] -> norm -> token table -> !LM
    sum == token table
    """,
)
