"""What a system reads, what it learns, in which stages, and how that is measured."""

from mmlearn.recipes.chance import all_as_near, even_classes, ln, ln_batch, ln_batch_and_queue, silence
from mmlearn.recipes.objectives import INFILLING, ITC, ITM, ITM_INSIDE, LM, MLM, MRM, REPLY, RTD, SOP, SPANS, STD, VQA
from mmlearn.recipes.recipe import Alarm, Objective, OneOf, Recipe, Stage, Turn

__all__ = [
    "INFILLING", "ITC", "ITM", "ITM_INSIDE", "LM", "MLM", "MRM", "REPLY", "RTD", "SOP", "SPANS", "STD", "VQA", "Alarm",
    "Objective", "OneOf", "Recipe", "Stage", "Turn", "all_as_near", "even_classes", "ln", "ln_batch",
    "ln_batch_and_queue", "silence",
]  # fmt: skip
