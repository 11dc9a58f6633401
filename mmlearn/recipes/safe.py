"""The recipe of SAFE: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Image, MatchLabel, Tokens
from mmlearn.evaluation.measures import matching_accuracy
from mmlearn.models.classic_fusion.safe import SAFE, SAFEConfig
from mmlearn.recipes import Objective, Recipe, ln

RECIPE = Recipe(
    SAFE,
    SAFEConfig,
    reads=(Image(), Tokens()),
    learns=Objective(
        "pairs",
        {"prediction": ln(2, "prediction_weight"), "similarity": None},
        labels=(MatchLabel(),),
        measures=(matching_accuracy,),
    ),
    architecture="""
    words -> Text-CNN -> concatenation -> !prediction
    image -> convolutions -> concatenation
    Text-CNN -> cosine -> !similarity
    convolutions -> cosine
    """,
)
