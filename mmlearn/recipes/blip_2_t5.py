"""The recipe of BLIP-2 on FlanT5: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Dialogues, Image
from mmlearn.models.bridges.blip_2_t5 import BLIP2T5, BLIP2T5Config
from mmlearn.recipes import LM, REPLY, OptimizerStep, Recipe, Stage

TRAINED = OptimizerStep(trains=("query_former", "language_projection"))
RECIPE = Recipe(
    BLIP2T5,
    BLIP2T5Config,
    reads=(Image(), Dialogues()),
    stages=(Stage(LM, (TRAINED,), name="generate"), Stage(REPLY, (TRAINED,), name="answer")),
    writes=True,
    architecture="""
    image -> *ViT [frozen] -> Q-Former [learned queries] -> projection -> *encoder [frozen, sees all]
    prompt -> *encoder
    *encoder -> *decoder [frozen, causal] -> !response LM
    """,
)
