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
    masked words -> sum [token, type, position] -> generator [small] -> language head -> !MLM
    language head -> corrupted words [samples] -> corrupted sum -> discriminator -> detection head -> !RTD
    sum == corrupted sum
    """,
)
