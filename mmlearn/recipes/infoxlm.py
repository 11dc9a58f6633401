"""The recipe of InfoXLM: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields.translations import EitherLanguage, MaskedTranslations, Translations
from mmlearn.evaluation.measures import retrieval
from mmlearn.models.many_languages.infoxlm import InfoXLM, InfoXLMConfig
from mmlearn.recipes import Objective, Recipe, ln
from mmlearn.recipes.shared.translations import masked_words_with_translation

RECIPE = Recipe(
    InfoXLM,
    InfoXLMConfig,
    reads=(Translations(),),
    learns=Objective(
        "infoxlm",
        {"mmlm": ln("vocab_size"), "tlm": ln("vocab_size"), "xlco": None},
        labels=(EitherLanguage(), MaskedTranslations()),
        measures=(masked_words_with_translation, retrieval("text", "translation")),
    ),
    architecture="""
    masked text -> XLM-R -> !MMLM
    both texts, masked [one sequence] -> XLM-R -> !TLM
    text -> lower blocks [first token] -> !XlCo
    translation -> lower blocks
    lower blocks == XLM-R
    lower blocks ~> momentum encoder -> queue -> !XlCo
    """,
)
