"""The recipe of GPT-2: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Tokens
from mmlearn.models.text.gpt2 import GPT2, GPT2Config
from mmlearn.recipes import LM, Recipe

RECIPE = Recipe(
    GPT2,
    GPT2Config,
    reads=(Tokens(),),
    learns=LM,
    writes=True,
    architecture="""
    words -> sum [token, position] -> transformer [causal] -> norm -> token table -> !LM
    sum == token table
    """,
)
