"""The recipe of UNITER: what it reads, what it learns, and how that is measured."""

from dataclasses import replace

from mmlearn.data.fields import Regions, Tokens
from mmlearn.models.fusion.uniter import UNITER, UNITERConfig
from mmlearn.recipes import ITM, MLM, MRM, OneOf, Recipe, uniform_classes

RECIPE = Recipe(
    UNITER,
    UNITERConfig,
    reads=(Tokens(), Regions()),
    learns=OneOf(
        MLM,
        replace(MRM, chance={"mrfr": None, "mrc_kl": uniform_classes}),
        replace(ITM, chance={**ITM.chance, "wra": None}),
    ),
    architecture="""
    words -> word embedding -> BERT [one sequence] -> !MLM
    *detector [not trained] -> regions -> region embedding [features, box] -> BERT -> !ITM
    BERT -> !MRFR, MRC, MRC-kl
    BERT -> !WRA [optimal transport]
    """,
)
