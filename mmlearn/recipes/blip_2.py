"""The recipe of BLIP-2: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Dialogues, Image
from mmlearn.models.bridges.blip_2 import BLIP2, FIRST, BLIP2Config
from mmlearn.recipes import ITC, ITM_INSIDE, LM, REPLY, Objective, Recipe, Stage, Turn, ln

SPEAKS = (Turn(moves=("query_former", "language_projection")),)
RECIPE = Recipe(
    BLIP2,
    BLIP2Config,
    reads=(Image(), Dialogues()),
    stages=(
        Stage(
            (ITC, ITM_INSIDE, Objective("itg", {"itg": ln("vocab_size")})),
            turns=(Turn("representation_loss", moves=FIRST),),
            name="represent",
        ),
        Stage(LM, turns=SPEAKS, name="generate"),
        Stage(REPLY, turns=SPEAKS, name="answer"),
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
