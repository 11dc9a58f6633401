"""The recipe of FLAVA: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import MaskedPatches, MaskedTokens, MatchLabel, PatchCodes, Patches, Tokens
from mmlearn.evaluation.measures import masked_word_accuracy, matching_accuracy, retrieval
from mmlearn.models.unified.flava import FLAVA, FLAVAConfig
from mmlearn.recipes import Objective, OneOf, Recipe, ln, ln_batch

CODES = PatchCodes()
RECIPE = Recipe(
    FLAVA,
    FLAVAConfig,
    reads=(Tokens(), Patches()),
    learns=OneOf(
        Objective("mlm", {"mlm": ln("vocab_size")}, labels=(MaskedTokens(),)),
        Objective("mim", {"mim": ln("codes")}, reads=(CODES,), labels=(MaskedPatches(),)),
        Objective(
            "pairs",
            {"itc": ln_batch, "itm": ln(2), "mmm_image": ln("codes"), "mmm_text": ln("vocab_size")},
            reads=(CODES,),
            labels=(MatchLabel(), MaskedTokens(), MaskedPatches()),
            measures=(retrieval("image", "text"), matching_accuracy, masked_word_accuracy),
            samples=1000,
        ),
    ),
    architecture="""
    image -> ViT -> !MIM [codes, pictures alone]
    text -> transformer [pre-norm] -> !MLM [texts alone]
    ViT -> !ITC
    transformer -> !ITC
    ViT -> transformer of both -> !MMM [words and codes]
    transformer -> transformer of both -> !ITM
    """,
)
