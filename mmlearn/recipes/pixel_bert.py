"""The recipe of Pixel-BERT: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Image, Tokens
from mmlearn.models.fusion.pixel_bert import PixelBERT, PixelBERTConfig
from mmlearn.recipes import ITM, MLM, VQA, Recipe

RECIPE = Recipe(
    PixelBERT,
    PixelBERTConfig,
    reads=(Image(), Tokens()),
    learns=(ITM, MLM, VQA),
    architecture="""
    words -> word embedding -> BERT [one sequence] -> !MLM
    image -> convolutional network [trained along] -> random pixels -> BERT -> !ITM
    """,
)
