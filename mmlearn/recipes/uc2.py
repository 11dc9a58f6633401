"""The recipe of UC2: what it reads, what it learns, and how that is measured."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from mmlearn.data.fields import MaskedRegions, Regions
from mmlearn.data.fields.translations import EitherLanguage, MaskedTranslations, Translations
from mmlearn.data.synthetic.regions import CLASSES
from mmlearn.evaluation.measures import Rows, majority_share, row
from mmlearn.models.fusion.pretraining_losses import Batch, regions_to_predict
from mmlearn.models.fusion.single_stream import SingleStreamOutput
from mmlearn.models.many_languages.uc2 import UC2, UC2Config
from mmlearn.recipes import ITM, MLM, Objective, OneOf, Recipe, ln
from mmlearn.recipes.shared.translations import masked_words_with_translation


def region_token_accuracy(run: Any, samples: Sequence[Any]) -> Rows:
    """How many masked regions get the token of their class. Chance: always the commonest."""

    def names(output: SingleStreamOutput, rows: Batch) -> Int[Tensor, "n 2"]:
        masked = regions_to_predict(rows)
        true = run.system.class_tokens[rows["region_classes"][masked].argmax(-1)]
        return torch.stack([run.system.token_logits(output.regions[masked]).argmax(-1), true], dim=1)

    guess, true = run.read(run.label(run.plain(samples), MaskedRegions()), names).unbind(1)
    return {"masked-region accuracy": row((guess == true).float().mean(), majority_share(true))}


VTLM = Objective(
    "vtlm",
    {"vtlm": ln("vocab_size")},
    labels=(MaskedTranslations(together=True),),
    measures=(masked_words_with_translation,),
)
MRTM = Objective("mrtm", {"mrtm": ln("vocab_size")}, labels=(MaskedRegions(),), measures=(region_token_accuracy,))
RECIPE = Recipe(
    UC2,
    UC2Config,
    reads=(Translations(class_names=CLASSES), Regions()),
    learns=OneOf(
        replace(MLM, labels=(EitherLanguage(), *MLM.labels)),
        MRTM,
        replace(ITM, labels=(EitherLanguage(), *ITM.labels)),
        VTLM,
        shares=(12, 9, 9, 3),
    ),
    architecture="""
    caption in either language -> word embedding -> BERT [one sequence] -> !MLM
    caption and translation [one row] -> word embedding
    BERT -> !VTLM
    *detector [not trained] -> regions -> region embedding [features, box] -> BERT -> !ITM
    BERT -> language head -> !MRTM [names of regions]
    """,
)
