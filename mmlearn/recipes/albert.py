"""The recipe of ALBERT: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Segments
from mmlearn.models.text.albert import ALBERT, ALBERTConfig
from mmlearn.recipes import MLM, SOP, Recipe

RECIPE = Recipe(
    ALBERT,
    ALBERTConfig,
    reads=(Segments(),),
    learns=(SOP, MLM),
    settings={"language_head": True, "order_head": True},
    architecture="""
    two segments -> narrow sum [token, type, position] -> widen -> block [again and again] -> language head -> !MLM
    block -> pooler [first token] -> order head -> !SOP
    """,
)
