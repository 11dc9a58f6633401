"""The recipe of VirTex: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Image, Tokens
from mmlearn.evaluation.image_probe import image_probe
from mmlearn.models.captions.virtex import VirTex, VirTexConfig
from mmlearn.recipes import LM, Objective, Recipe, ln

RECIPE = Recipe(
    VirTex,
    VirTexConfig,
    reads=(Image(), Tokens()),
    learns=Objective(
        "bicaptioning",
        {"forward": ln("vocab_size"), "backward": ln("vocab_size")},
        measures=(*LM.measures, image_probe),
    ),
    writes=True,
    architecture="""
    image -> ResNet [what is kept] -> projection -> forward decoder [causal] -> !LM
    projection -> backward decoder [causal, text turned round] -> !LM, backwards
    words -> forward decoder
    words -> backward decoder
    """,
)
