"""The recipe of BEiT: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import MaskedPatches, PatchCodes, Patches
from mmlearn.evaluation.measures import masked_code_accuracy
from mmlearn.models.vision.beit import BEiT, BEiTConfig
from mmlearn.recipes import Objective, Recipe, ln

RECIPE = Recipe(
    BEiT,
    BEiTConfig,
    reads=(Patches(), PatchCodes()),
    learns=Objective("mim", {"codes": ln("codes")}, labels=(MaskedPatches(),), measures=(masked_code_accuracy,)),
    architecture="""
    image -> patches -> hide blocks -> ViT [relative positions] -> scores of codes -> !cross-entropy [hidden patches]
    image -> *tokenizer [k-means of colours] -> code of each patch -> !cross-entropy
    """,
)
