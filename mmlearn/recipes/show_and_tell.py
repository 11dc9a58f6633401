"""The recipe of Show and Tell: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Image, Tokens
from mmlearn.models.recurrent_captions.show_and_tell import ShowAndTell, ShowAndTellConfig
from mmlearn.recipes import LM, Recipe

RECIPE = Recipe(
    ShowAndTell,
    ShowAndTellConfig,
    reads=(Image(), Tokens()),
    learns=LM,
    writes=True,
    architecture="""
    image -> ResNet -> summary [mean, projected] -> LSTM [summary first, then words] -> !LM
    words -> LSTM
    """,
)
