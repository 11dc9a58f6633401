"""The recipe of SAN: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Image, Tokens
from mmlearn.models.question_answering.san import SAN, SANConfig
from mmlearn.recipes import Recipe
from mmlearn.recipes.shared.answering import ANSWERING

RECIPE = Recipe(
    SAN,
    SANConfig,
    reads=(Image(), Tokens()),
    learns=ANSWERING,
    architecture="""
    image -> cells -> look 1 [attention] -> look 2 [attention] -> !answer
    question -> LSTM -> look 1
    cells -> look 2
    """,
)
