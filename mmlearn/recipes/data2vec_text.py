"""The recipe of data2vec for text: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import MaskedTokens, Tokens
from mmlearn.models.unified.data2vec_text import Data2VecText, Data2VecTextConfig
from mmlearn.recipes import Objective, Recipe
from mmlearn.recipes.shared.self_distillation import masked_features_explained

RECIPE = Recipe(
    Data2VecText,
    Data2VecTextConfig,
    reads=(Tokens(),),
    learns=Objective(
        "self-distillation", {"regression": None}, labels=(MaskedTokens(),), measures=(masked_features_explained,)
    ),
    architecture="""
    masked words -> student [BERT] -> head -> !smooth L1 [masked words]
    whole text -> teacher [no gradient] -> mean of last layers [normalised] -> !smooth L1
    student ~> teacher
    """,
)
