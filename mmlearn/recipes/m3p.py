"""The recipe of M3P: what it reads, what it learns, and how that is measured."""

from dataclasses import replace

from mmlearn.data.fields import MaskedRegions, Regions
from mmlearn.data.fields.translations import CodeSwitched, MaskedTranslations, Translations
from mmlearn.evaluation.measures import masked_region_losses, masked_word_accuracy
from mmlearn.models.many_languages.m3p import M3P, M3PConfig
from mmlearn.recipes import ITM, MLM, Objective, OneOf, Recipe, ln


def switched(objective: Objective) -> Objective:
    """The objective on captions of which some words are translated."""
    return replace(objective, labels=(CodeSwitched(), *objective.labels))


MRM = Objective(
    "mrm", {"mrfr": None, "mrc": ln("region_classes")}, labels=(MaskedRegions(),), measures=(masked_region_losses,)
)
RECIPE = Recipe(
    M3P,
    M3PConfig,
    reads=(Translations(), Regions()),
    learns=OneOf(
        Objective("xmlm", {"xmlm": ln("vocab_size")}, labels=(MaskedTranslations(),), measures=(masked_word_accuracy,)),
        switched(MLM),
        switched(MRM),
        switched(ITM),
    ),
    architecture="""
    text in one language -> word embedding -> BERT [one sequence] -> !xMLM
    caption in two languages -> word embedding
    *detector [not trained] -> regions -> region embedding [features, box] -> BERT -> !MC-MLM
    BERT -> !MC-MRM
    BERT -> !MC-VLM
    """,
)
