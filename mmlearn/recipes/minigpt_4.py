"""The recipe of MiniGPT-4: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Dialogues, Image
from mmlearn.models.bridges.minigpt_4 import MiniGPT4, MiniGPT4Config
from mmlearn.models.text import opt  # noqa: F401  a language model that it may have
from mmlearn.recipes import LM, REPLY, Recipe, Stage

RECIPE = Recipe(
    MiniGPT4,
    MiniGPT4Config,
    reads=(Image(), Dialogues()),
    stages=(Stage(LM, name="pretrain"), Stage(REPLY, name="finetune")),
    writes=True,
    architecture="""
    image -> *ViT [frozen] -> *Q-Former [frozen] -> projection [one layer] -> *language model [frozen] -> !response LM
    instruction and response -> *language model
    """,
)
