"""The recipe of OSCAR: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import PollutedTriples, Regions, TaggedCaptions
from mmlearn.evaluation.measures import triple_accuracy
from mmlearn.models.fusion.oscar import OSCAR, OSCARConfig
from mmlearn.recipes import MLM, Objective, Recipe, ln

RECIPE = Recipe(
    OSCAR,
    OSCARConfig,
    reads=(TaggedCaptions(), Regions()),
    learns=(
        Objective(
            "contrastive", {"contrastive": ln(2)}, (PollutedTriples(),), measures=(triple_accuracy(PollutedTriples()),)
        ),
        MLM,
    ),
    architecture="""
    words -> sum [token, type, position] -> BERT [one sequence] -> !MLM [of words and tags]
    tags [of regions] -> sum
    *detector [not trained] -> tags
    detector -> regions -> projection [features, box] -> BERT -> !tags polluted?
    """,
)
