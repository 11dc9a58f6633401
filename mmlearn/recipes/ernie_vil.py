"""The recipe of ERNIE-ViL: what it reads, what it learns, and how that is measured."""

from dataclasses import replace

from mmlearn.data.fields import Regions
from mmlearn.data.fields.graphs import GraphTokens, MaskedNodes
from mmlearn.evaluation.measures import masked_token_accuracy
from mmlearn.models.fusion.ernie_vil import ERNIEViL, ERNIEViLConfig
from mmlearn.objectives.masked import ROLES
from mmlearn.recipes import ITM, MLM, MRM, Objective, OneOf, Recipe, ln, uniform_classes


def prediction_of(role: str) -> Objective:
    """The objective of one role of the scene graph."""
    label = MaskedNodes(role)
    measure = masked_token_accuracy(label, f"{role}_label", f"masked-{role}")
    return Objective(role, {role: ln("vocab_size")}, labels=(label,), measures=(measure,))


RECIPE = Recipe(
    ERNIEViL,
    ERNIEViLConfig,
    reads=(GraphTokens(), Regions()),
    learns=OneOf((ITM, MLM, replace(MRM, chance={"mrc_kl": uniform_classes})), *map(prediction_of, ROLES)),
    architecture="""
    words -> text blocks -> co-attention layers [each stream attends to the other] -> !MLM
    *detector [not trained] -> regions -> visual blocks -> co-attention layers -> !ITM
    co-attention layers -> !MRC-kl
    co-attention layers -> !objects, attributes, relations [one role a batch]
    """,
)
