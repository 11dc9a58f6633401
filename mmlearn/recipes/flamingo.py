"""The recipe of Flamingo: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Dialogues, Image
from mmlearn.models.bridges.flamingo import Flamingo, FlamingoConfig
from mmlearn.models.text import opt  # noqa: F401  a language model that it may have
from mmlearn.recipes import LM, Recipe

RECIPE = Recipe(
    Flamingo,
    FlamingoConfig,
    reads=(Image(), Dialogues()),
    learns=LM,
    writes=True,
    architecture="""
    image -> *ViT [frozen] -> resampler [learned latents] -> gated blocks [closed at the start] -> !LM
    text -> *language model [frozen, causal] -> gated blocks
    """,
)
