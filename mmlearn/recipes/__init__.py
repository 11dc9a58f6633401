"""What a system reads, what it learns, in which stages, and how that is measured."""

from mmlearn.recipes.chance import (
    hinge_at_equal_similarity,
    ln,
    ln_batch,
    ln_batch_and_queue,
    uniform_classes,
    zero_mel,
)
from mmlearn.recipes.objectives import (
    INFILLING,
    ITC,
    ITM,
    ITM_OWN_NEGATIVES,
    LM,
    MLM,
    MRM,
    REPLY,
    RTD,
    SOP,
    SPANS,
    STD,
    VQA,
)
from mmlearn.recipes.recipe import Alarm, Objective, OneOf, OptimizerStep, Recipe, Stage

__all__ = [
    "INFILLING",
    "ITC",
    "ITM",
    "ITM_OWN_NEGATIVES",
    "LM",
    "MLM",
    "MRM",
    "REPLY",
    "RTD",
    "SOP",
    "SPANS",
    "STD",
    "VQA",
    "Alarm",
    "Objective",
    "OneOf",
    "OptimizerStep",
    "Recipe",
    "Stage",
    "hinge_at_equal_similarity",
    "ln",
    "ln_batch",
    "ln_batch_and_queue",
    "uniform_classes",
    "zero_mel",
]  # fmt: skip
