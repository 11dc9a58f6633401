"""The recipe of ViT: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Image, Labels
from mmlearn.evaluation.measures import class_accuracy
from mmlearn.models.vision.vit import ViT, ViTConfig
from mmlearn.recipes import Objective, Recipe, ln

RECIPE = Recipe(
    ViT,
    ViTConfig,
    reads=(Image(), Labels()),
    learns=Objective(
        "classification", {"classification": ln("num_classes")}, measures=(class_accuracy("pictures named"),)
    ),
    architecture="""
    image -> patches [one linear layer] -> transformer -> class token -> !classification
    """,
)
