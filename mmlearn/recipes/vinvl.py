"""The recipe of VinVL: what it reads, what it learns, and how that is measured."""

from dataclasses import replace
from typing import Any

from mmlearn.data.fields import PollutedTriples, Regions, TaggedCaptions
from mmlearn.evaluation.measures import triple_accuracy
from mmlearn.models.fusion.vinvl import VinVL, VinVLConfig
from mmlearn.recipes import MLM, Objective, OneOf, Recipe, ln
from mmlearn.recipes.objectives import QuestionSample


class Answered(QuestionSample):
    """A sample whose text is its question, and whose tags are the answer. ``ValueError`` for a sample without one."""

    def __init__(self, sample: Any):
        super().__init__(sample)
        self.tags = sample.question.answer


POLLUTION = PollutedTriples(words=True)
CONTRASTIVE = Objective("contrastive", {"contrastive": ln(3)}, (POLLUTION,), measures=(triple_accuracy(POLLUTION),))
RECIPE = Recipe(
    VinVL,
    VinVLConfig,
    reads=(TaggedCaptions(), Regions()),
    learns=OneOf(
        (CONTRASTIVE, MLM),
        (
            replace(CONTRASTIVE, name="contrastive-answers", ask=Answered, measures=()),
            replace(MLM, name="mlm-answers", ask=Answered, measures=()),
        ),
    ),
    architecture="""
    words -> sum [token, type, position] -> BERT [one sequence] -> !MLM [of words and tags]
    tags [or the answer] -> sum
    *detector [not trained] -> tags
    detector -> regions -> projection [features, box] -> BERT -> !tags or words polluted?
    """,
)
