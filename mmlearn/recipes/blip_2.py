"""The recipe of BLIP-2: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Dialogues, Image
from mmlearn.models.bridges.blip_2 import BLIP2, BLIP2Config
from mmlearn.models.text import opt  # noqa: F401  a language model that it may have
from mmlearn.recipes import ITC, ITM_OWN_NEGATIVES, LM, REPLY, Objective, OptimizerStep, Recipe, Stage, ln

REPRESENTATION = ("query_former", "text", "image_projection", "match_head", "language_head", "temperature")
GENERATION = ("query_former", "language_projection")
RECIPE = Recipe(
    BLIP2,
    BLIP2Config,
    reads=(Image(), Dialogues()),
    stages=(
        Stage(
            (ITC, ITM_OWN_NEGATIVES, Objective("itg", {"itg": ln("vocab_size")})),
            optimizer_steps=(OptimizerStep("representation_loss", trains=REPRESENTATION),),
            name="represent",
        ),
        Stage(LM, optimizer_steps=(OptimizerStep(trains=GENERATION),), name="generate"),
        Stage(REPLY, optimizer_steps=(OptimizerStep(trains=GENERATION),), name="answer"),
    ),
    writes=True,
    architecture="""
    image -> *ViT [frozen] -> Q-Former [learned queries] -> u [best query] -> !ITC
    text -> text side [shares self-attention] -> v [first token] -> !ITC
    Q-Former -> matching [all see all] -> !ITM
    text side -> matching
    text side -> writing [sees queries] -> !ITG
    Q-Former -> writing
    Q-Former -> projection -> *language model [frozen, causal] -> !LM
    text -> *language model
    """,
)
