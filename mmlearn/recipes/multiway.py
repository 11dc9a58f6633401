"""The recipe of the Multiway transformer, VLMo and BEiT-3: what it reads, what it learns, and how that is measured."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mmlearn.data.fields import MaskedPatches, MaskedTokens, MatchLabel, PatchCodes, Patches, Tokens
from mmlearn.evaluation.measures import (
    majority_share,
    masked_code_accuracy,
    masked_word_accuracy,
    matching_accuracy,
    retrieval,
    row,
)
from mmlearn.models.unified.multiway import Multiway, MultiwayConfig, MultiwayTextOutput
from mmlearn.objectives.masked import IGNORED
from mmlearn.recipes import Objective, OneOf, OptimizerStep, Recipe, Stage, ln, ln_batch


def text_only_word_accuracy(run: Any, samples: Sequence[Any]) -> dict[str, dict[str, float | None]]:
    """How many masked tokens are predicted without a picture. Chance: the commonest token."""
    batch = run.label(run.plain(samples), MaskedTokens())
    texts = {name: batch[name] for name in ("tokens", "mask", "token_label")}
    masked = texts["token_label"] != IGNORED

    def right(output: MultiwayTextOutput, rows: dict[str, Tensor]) -> Tensor:
        return (output.token_logits.argmax(-1) == rows["token_label"])[rows["token_label"] != IGNORED]

    accuracy = run.read(texts, right).float().mean()
    return {"masked-word accuracy, no picture": row(accuracy, majority_share(texts["token_label"][masked]))}


SHARED = ("attention", "norm")
IMAGE_EMBEDDING = ("image_embedding.patches", "image_embedding.class_token", "image_embedding.positions")
CODES = PatchCodes()
MIM = Objective(
    "mim", {"mim": ln("codes")}, reads=(CODES,), labels=(MaskedPatches(),), measures=(masked_code_accuracy,)
)
WORDS = Objective("mlm", {"mlm": ln("vocab_size")}, labels=(MaskedTokens(),), measures=(text_only_word_accuracy,))
MMM = Objective(
    "mmm",
    {"mmm_text": ln("vocab_size"), "mmm_image": ln("codes")},
    reads=(CODES,),
    labels=(MaskedTokens(), MaskedPatches()),
    measures=(masked_word_accuracy,),
)
RECIPE = Recipe(
    Multiway,
    MultiwayConfig,
    reads=(Tokens(), Patches()),
    stages=(
        Stage(
            MIM,
            optimizer_steps=(OptimizerStep(trains=(*SHARED, "experts.image", "image_embedding", "code_head")),),
            name="pictures",
        ),
        Stage(  # attention and the MLPs of pictures stay as they are
            WORDS,
            optimizer_steps=(OptimizerStep(trains=("experts.text", "text_embedding", "language_head")),),
            name="texts",
        ),
        Stage(
            Objective(
                "pairs",
                {"itc": ln_batch, "itm": ln(2), "mlm": ln("vocab_size")},
                labels=(MatchLabel(), MaskedTokens()),
                measures=(retrieval("image", "text"), matching_accuracy, masked_word_accuracy),
                samples=1000,
            ),
            optimizer_steps=(
                OptimizerStep(
                    trains=(*SHARED, *IMAGE_EMBEDDING, "experts", "text_embedding", "language_head", "match_head")
                    + ("type_embeddings", "image_projection", "text_projection", "logit_scale")
                ),
            ),
            name="pairs",
        ),
        Stage(  # what BEiT-3 learns, from the start: all three
            OneOf(MIM, WORDS, MMM),
            optimizer_steps=(
                OptimizerStep(
                    trains=(*SHARED, "experts", "image_embedding", "text_embedding", "language_head", "code_head")
                ),
            ),
            name="masked-data",
        ),
    ),
    architecture="""
    image -> patches -> one sequence
    text -> words -> one sequence -> shared attention -> MLP of pictures -> !MIM [first stage]
    shared attention -> MLP of texts -> !MLM [second stage]
    shared attention -> MLP of pairs [last blocks] -> !ITM and MLM [third stage]
    MLP of pictures -> !ITC
    MLP of texts -> !ITC
    """,
)
