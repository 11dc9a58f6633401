"""The recipe of Frozen: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Dialogues, Image
from mmlearn.models.bridges.frozen import Frozen, FrozenConfig
from mmlearn.models.text import opt  # noqa: F401  a language model that it may have
from mmlearn.recipes import LM, Recipe

RECIPE = Recipe(
    Frozen,
    FrozenConfig,
    reads=(Image(), Dialogues()),
    learns=LM,
    writes=True,
    architecture="""
    image -> ViT -> prefix [a few embeddings] -> *language model [frozen, causal] -> !LM
    text -> *language model
    """,
)
