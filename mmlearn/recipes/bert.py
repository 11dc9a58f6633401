"""The recipe of BERT: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Tokens
from mmlearn.models.text.bert import BERT, BERTConfig
from mmlearn.recipes import MLM, Recipe

RECIPE = Recipe(
    BERT,
    BERTConfig,
    reads=(Tokens(),),
    learns=MLM,
    settings={"language_head": True, "pooler": False},
    architecture="""
    words -> sum [token, type, position] -> transformer -> language head -> !MLM
    """,
)
