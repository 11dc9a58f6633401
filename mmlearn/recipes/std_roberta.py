"""The recipe of STD-RoBERTa: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Tokens
from mmlearn.models.text.std_roberta import STDRoBERTa, STDRoBERTaConfig
from mmlearn.recipes import MLM, STD, OptimizerStep, Recipe, Stage

RECIPE = Recipe(
    STDRoBERTa,
    STDRoBERTaConfig,
    reads=(Tokens(),),
    stages=(
        Stage(
            MLM, optimizer_steps=(OptimizerStep(trains=("embedding", "transformer", "language_head")),), name="pretrain"
        ),
        Stage(
            STD, optimizer_steps=(OptimizerStep(trains=("embedding", "transformer", "detection_head")),), name="refine"
        ),
    ),
    architecture="""
    masked words -> sum [token, type, position] -> transformer -> language head -> !MLM
    shuffled words -> sum
    transformer -> detection head -> !STD
    """,
)
