"""The recipe of STD-RoBERTa: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Tokens
from mmlearn.models.text.std_roberta import STDRoBERTa, STDRoBERTaConfig
from mmlearn.recipes import MLM, STD, Recipe, Stage, Turn

RECIPE = Recipe(
    STDRoBERTa,
    STDRoBERTaConfig,
    reads=(Tokens(),),
    stages=(
        Stage(MLM, turns=(Turn(moves=("embedding", "transformer", "language_head")),), name="pretrain"),
        Stage(STD, turns=(Turn(moves=("embedding", "transformer", "detection_head")),), name="refine"),
    ),
    architecture="""
    masked words -> sum [token, type, position] -> transformer -> language head -> !MLM
    shuffled words -> sum
    transformer -> detection head -> !STD
    """,
)
