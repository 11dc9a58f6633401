"""The recipe of Llama: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Tokens
from mmlearn.models.text.llama import Llama, LlamaConfig
from mmlearn.recipes import LM, Recipe

RECIPE = Recipe(
    Llama,
    LlamaConfig,
    reads=(Tokens(),),
    learns=LM,
    writes=True,
    architecture="""
    words -> token table -> transformer [causal, rotary, grouped queries] -> RMS norm -> language head -> !LM
    """,
)
