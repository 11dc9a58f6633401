"""The recipe of ViLT: what it reads, what it learns, and how that is measured."""

from dataclasses import replace

from mmlearn.data.fields import Image, Tokens
from mmlearn.models.fusion.vilt import ViLT, ViLTConfig
from mmlearn.recipes import ITM, MLM, VQA, Recipe

RECIPE = Recipe(
    ViLT,
    ViLTConfig,
    reads=(Image(), Tokens(words=True)),
    learns=(replace(ITM, chance={**ITM.chance, "wra": None}), MLM, VQA),
    architecture="""
    words -> word embedding -> transformer [pre-norm, one sequence] -> !MLM
    image -> patches [one linear layer] -> transformer -> !ITM
    transformer -> !WRA [optimal transport]
    """,
)
