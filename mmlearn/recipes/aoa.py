"""The recipe of AoA: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Image, Tokens
from mmlearn.models.question_answering.aoa import AoA, AoAConfig
from mmlearn.recipes import Recipe
from mmlearn.recipes.shared.answering import ANSWERING

RECIPE = Recipe(
    AoA,
    AoAConfig,
    reads=(Image(), Tokens()),
    learns=ANSWERING,
    architecture="""
    question -> LSTM -> encoder [attention on attention] -> decoder [guided] -> fusion -> !answer
    image -> cells -> decoder
    encoder -> fusion
    """,
)
