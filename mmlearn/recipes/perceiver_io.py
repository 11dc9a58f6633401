"""The recipe of Perceiver IO: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Image, Tokens
from mmlearn.models.unified.perceiver_io import PerceiverIO, PerceiverIOConfig
from mmlearn.recipes import MLM, Recipe

RECIPE = Recipe(
    PerceiverIO,
    PerceiverIOConfig,
    reads=(Tokens(), Image()),
    learns=MLM,
    settings={"language_head": True},
    architecture="""
    masked words -> one sequence [positions, padding] -> encode [cross-attention] -> process [self-attention]
    image -> patches [Fourier features] -> one sequence
    process -> decode [a query for each word] -> !MLM
    """,
)
