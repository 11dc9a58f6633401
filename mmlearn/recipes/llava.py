"""The recipe of LLaVA: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Dialogues, Image
from mmlearn.models.bridges.llava import LLaVA, LLaVAConfig
from mmlearn.recipes import LM, REPLY, Recipe, Stage, Turn

RECIPE = Recipe(
    LLaVA,
    LLaVAConfig,
    reads=(Image(), Dialogues()),
    stages=(
        Stage(LM, turns=(Turn(moves=("projector",)),), name="align"),
        Stage(REPLY, turns=(Turn(moves=("projector", "language_model")),), name="instruct"),
    ),
    writes=True,
    architecture="""
    image -> *ViT [frozen] -> projector [two layers] -> language model [causal, frozen at first] -> !response LM
    instruction and response -> language model
    """,
)
