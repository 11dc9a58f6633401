"""The recipe of data2vec for pictures: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import MaskedPatches, Patches
from mmlearn.models.unified.data2vec_vision import Data2VecVision, Data2VecVisionConfig
from mmlearn.recipes import Objective, Recipe
from mmlearn.recipes.shared.self_distillation import masked_features_explained

RECIPE = Recipe(
    Data2VecVision,
    Data2VecVisionConfig,
    reads=(Patches(),),
    learns=Objective(
        "self-distillation", {"regression": None}, labels=(MaskedPatches(),), measures=(masked_features_explained,)
    ),
    architecture="""
    image -> mask blocks -> student [ViT, relative positions] -> head -> !smooth L1 [masked patches]
    image -> teacher [no gradient] -> mean of last layers [normalised] -> !smooth L1
    student ~> teacher
    """,
)
