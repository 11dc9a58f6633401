"""The recipe of Vokenization: what it reads, what it learns, and how that is measured."""

from collections.abc import Sequence
from typing import Any

from mmlearn.data.fields import Image, MaskedTokens, Tokens
from mmlearn.evaluation.eval_mode import evaluating
from mmlearn.evaluation.measures import Rows, majority_share, masked_word_accuracy, row
from mmlearn.models.text.vokenization import Vokenization, VokenizationConfig
from mmlearn.pretrained.backbone import load_backbone
from mmlearn.recipes import Objective, OptimizerStep, Recipe, Stage, ln
from mmlearn.recipes.shared.vokens import token_to_image_recall


def voken_accuracy(run: Any, samples: Sequence[Any]) -> Rows:
    """How many vokens are predicted where some words are masked. Chance: always the commonest."""
    plain = run.plain(samples)
    unmasked, mask = run.on_device(plain), plain["mask"]
    with evaluating(run.system):
        vokens = run.system.vokenizer.retrieve(unmasked["tokens"], unmasked["mask"]).cpu()
    guess = run.read(run.label(plain, MaskedTokens()), lambda output, rows: output.voken_logits.argmax(-1))
    return {"voken accuracy": row((guess == vokens)[mask].float().mean(), majority_share(vokens[mask]))}


LANGUAGE_MODEL = ("embedding", "transformer", "language_head", "voken_head")
MATCH = Objective(
    "match",
    {"match": lambda config, batch: config.vokenizer.margin},
    reads=(Image(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),),  # the picture network normalises them itself
    measures=(token_to_image_recall,),
)
LANGUAGE = Objective(
    "language",
    {"mlm": ln("vocab_size"), "voken": ln("num_vokens")},
    labels=(MaskedTokens(),),
    measures=(masked_word_accuracy, voken_accuracy),
)
RECIPE = Recipe(
    Vokenization,
    VokenizationConfig,
    reads=(Tokens(),),
    stages=(
        Stage(MATCH, optimizer_steps=(OptimizerStep("match_loss", trains=("vokenizer",)),), name="vokenize"),
        Stage(LANGUAGE, optimizer_steps=(OptimizerStep(trains=LANGUAGE_MODEL),), name="language"),
    ),
    build=lambda config: Vokenization(config, load_backbone()),
    architecture="""
    image -> *picture network [frozen] -> g -> !hinge
    words -> vokenizer's BERT -> f [each token] -> !hinge
    g -> vokens [nearest pictures]
    f -> vokens
    masked words -> BERT -> !MLM
    BERT -> voken head -> !voken classification
    vokens -> !voken classification
    """,
)
