"""The recipe of SCA-CNN: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Image, Tokens
from mmlearn.models.recurrent_captions.sca_cnn import SCACNN, SCACNNConfig
from mmlearn.recipes import LM, Objective, Recipe
from mmlearn.recipes.shared.recurrent_captions import pointing_before_words

RECIPE = Recipe(
    SCACNN,
    SCACNNConfig,
    reads=(Image(), Tokens()),
    learns=Objective("lm", LM.chance, measures=(*LM.measures, pointing_before_words)),
    writes=True,
    architecture="""
    image -> ResNet -> feature map -> channel attention [asked by the LSTM] -> spatial attention -> LSTM -> !LM
    words -> LSTM
    """,
)
