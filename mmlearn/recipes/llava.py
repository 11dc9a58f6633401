"""The recipe of LLaVA: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Dialogues, Image
from mmlearn.models.bridges.llava import LLaVA, LLaVAConfig
from mmlearn.models.text import opt  # noqa: F401  a language model that it may have
from mmlearn.recipes import LM, REPLY, OptimizerStep, Recipe, Stage

RECIPE = Recipe(
    LLaVA,
    LLaVAConfig,
    reads=(Image(), Dialogues()),
    stages=(
        Stage(LM, optimizer_steps=(OptimizerStep(trains=("projector",)),), name="align"),
        Stage(REPLY, optimizer_steps=(OptimizerStep(trains=("projector", "language_model")),), name="instruct"),
    ),
    writes=True,
    architecture="""
    image -> *ViT [frozen] -> projector [two layers] -> language model [causal, frozen at first] -> !response LM
    instruction and response -> language model
    """,
)
