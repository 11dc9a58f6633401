"""The recipe of ViT-BERT: what it reads, what it learns, and how that is measured."""

from collections.abc import Callable, Sequence
from typing import Any

from mmlearn.data.fields import MaskedPatches, MaskedTokens, PatchCodes, Patches, Tokens
from mmlearn.evaluation.eval_mode import evaluating
from mmlearn.evaluation.measures import majority_share, masked_code_accuracy, masked_word_accuracy, row
from mmlearn.models.unified.vit_bert import ViTBERT, ViTBERTConfig
from mmlearn.objectives.masked import IGNORED
from mmlearn.recipes import Objective, OptimizerStep, Recipe, Stage, ln


def label_chance(size: str) -> Callable:
    """The loss of a label before anything is learned, with its weight."""
    return lambda config, batch: (1 - config.distillation) * ln(size)(config, batch)


def teacher_accuracy(run: Any, samples: Sequence[Any]) -> dict[str, dict[str, float | None]]:
    """How many masked words and codes the teachers predict. Chance: always the commonest."""
    batch = run.on_device(run.collate()(samples))
    with evaluating(run.system):
        words = run.system.text_teacher(batch["tokens"], batch["mask"]).argmax(-1)
        codes = run.system.image_teacher(batch["image"], batch["masked_patches"]).argmax(-1)
    rows = {}
    masked = batch["token_label"] != IGNORED, batch["masked_patches"]
    for name, guess, right, where in zip(
        ("word", "code"), (words, codes), (batch["token_label"], batch["code"]), masked
    ):
        share = (guess[where] == right[where]).float().mean()
        rows[f"masked-{name} accuracy of the teacher"] = row(share, majority_share(right[where].cpu()))
    return rows


LABELS: dict[str, Any] = dict(labels=(MaskedTokens(), MaskedPatches()))
RECIPE = Recipe(
    ViTBERT,
    ViTBERTConfig,
    reads=(Tokens(), Patches(), PatchCodes()),
    stages=(
        Stage(
            Objective(
                "teach",
                {"teacher_mlm": ln("vocab_size"), "teacher_mim": ln("codes")},
                measures=(teacher_accuracy,),
                **LABELS,
            ),
            optimizer_steps=(OptimizerStep("teacher_loss", trains=("text_teacher", "image_teacher")),),
            name="teachers",
        ),
        Stage(
            Objective(
                "unpaired",
                {"mlm": label_chance("vocab_size"), "text_kd": None, "mim": label_chance("codes"), "image_kd": None},
                measures=(masked_word_accuracy, masked_code_accuracy),
                **LABELS,
            ),
            optimizer_steps=(OptimizerStep(trains=("embedding", "patches", "encoder", "language_head", "code_head")),),
            name="joint",
        ),
    ),
    architecture="""
    masked words -> sum [token, position] -> shared transformer [gradient masks] -> language head -> !MLM and KD
    image -> patches [masked] -> shared transformer -> code head -> !MIM and KD
    masked words -> *teacher of texts [trained first] -> !MLM and KD
    patches -> *teacher of pictures [trained first] -> !MIM and KD
    """,
)
