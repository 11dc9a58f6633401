"""The recipe of AST: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Labels, LogMel
from mmlearn.evaluation.measures import class_accuracy
from mmlearn.models.audio.ast import AST, ASTConfig
from mmlearn.recipes import Objective, Recipe, ln

RECIPE = Recipe(
    AST,
    ASTConfig,
    reads=(LogMel(), Labels()),
    learns=Objective(
        "classification",
        {"classification": ln("num_classes")},
        measures=(class_accuracy("word accuracy"),),
        samples=5000,
    ),
    architecture="""
    log-mel -> overlapping patches -> transformer -> class token -> !classification
    """,
)
