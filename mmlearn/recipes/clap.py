"""The recipe of CLAP: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import LogMel, Tokens
from mmlearn.evaluation.measures import retrieval
from mmlearn.models.audio.clap import CLAP, CLAPConfig
from mmlearn.recipes import Objective, Recipe, ln_batch

RECIPE = Recipe(
    CLAP,
    CLAPConfig,
    reads=(LogMel(), Tokens()),
    learns=Objective("atc", {"atc": ln_batch}, measures=(retrieval("audio", "text"),)),
    architecture="""
    log-mel -> Swin transformer [HTS-AT] -> a -> !InfoNCE
    text -> transformer [RoBERTa] -> v [first token] -> !InfoNCE
    """,
)
