"""The recipe of ELECTRA: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Tokens
from mmlearn.models.text.electra import ELECTRA, ELECTRAConfig
from mmlearn.recipes import RTD, Recipe

RECIPE = Recipe(
    ELECTRA,
    ELECTRAConfig,
    reads=(Tokens(),),
    learns=RTD,
    architecture="""
    words with gaps -> sum [token, type, place] -> generator [small] -> language head -> !MLM
    language head -> filled words [drawn] -> filled sum [token, type, place] -> discriminator -> detection head -> !RTD
    sum == filled sum
    """,
)
