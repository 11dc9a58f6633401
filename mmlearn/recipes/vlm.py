"""The recipe of a vision–language model: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Image, ImageDialogues
from mmlearn.models.bridges.vlm import VLM, VLMConfig
from mmlearn.recipes import LM, REPLY, OptimizerStep, Recipe, Stage

RECIPE = Recipe(
    VLM,
    VLMConfig,
    reads=(Image(), ImageDialogues()),
    stages=(
        Stage(LM, (OptimizerStep(trains=("projector",)),), name="align"),
        Stage(REPLY, (OptimizerStep(trains=("projector", "language_model")),), name="instruct"),
    ),
    writes=True,
    architecture="""
    image -> *ViT [frozen] -> pixel shuffle -> projector -> sequence [in place of image tokens]
    text with image tokens -> token table -> sequence
    sequence -> Llama [causal, frozen at first] -> !response LM
    """,
)
