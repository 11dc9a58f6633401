"""The recipe of ViT-BERT: what it reads, what it learns, and how that is measured."""

from collections.abc import Callable, Sequence
from typing import Any

from mmlearn.data.fields import MaskedPatches, MaskedTokens, PatchCodes, Patches, Tokens
from mmlearn.evaluation.measures import hidden_codes_named, masked_words, most_common, row
from mmlearn.evaluation.mode import evaluating
from mmlearn.models.unified.vit_bert import ViTBERT, ViTBERTConfig
from mmlearn.objectives.masked import IGNORED
from mmlearn.recipes import Objective, Recipe, Stage, Turn, ln


def by_labels(size: str) -> Callable:
    """What a loss costs before anything is learned, as a share of that of its labels."""
    return lambda config, batch: (1 - config.distillation) * ln(size)(config, batch)


def teachers_guess(run: Any, samples: Sequence[Any]) -> dict[str, dict[str, float | None]]:
    """How many hidden words and codes the teachers guess. Chance: always the commonest."""
    batch = run.on_device(run.collate()(samples))
    with evaluating(run.system):
        words = run.system.text_teacher(batch["tokens"], batch["mask"]).argmax(-1)
        codes = run.system.image_teacher(batch["image"], batch["masked_patches"]).argmax(-1)
    rows = {}
    asked = batch["token_label"] != IGNORED, batch["masked_patches"]
    for name, guess, right, where in zip(
        ("words", "codes"), (words, codes), (batch["token_label"], batch["code"]), asked
    ):
        share = (guess[where] == right[where]).float().mean()
        rows[f"hidden {name} that the teacher guesses"] = row(share, most_common(right[where].cpu()))
    return rows


LABELS = dict(labels=(MaskedTokens(), MaskedPatches()))
RECIPE = Recipe(
    ViTBERT,
    ViTBERTConfig,
    reads=(Tokens(), Patches(), PatchCodes()),
    stages=(
        Stage(
            Objective(
                "teach",
                {"teacher_mlm": ln("vocab_size"), "teacher_mim": ln("codes")},
                measures=(teachers_guess,),
                **LABELS,
            ),
            turns=(Turn("teacher_loss", moves=("text_teacher", "image_teacher")),),
            name="teachers",
        ),
        Stage(
            Objective(
                "unpaired",
                {"mlm": by_labels("vocab_size"), "text_kd": None, "mim": by_labels("codes"), "image_kd": None},
                measures=(masked_words, hidden_codes_named),
                **LABELS,
            ),
            turns=(Turn(moves=("embedding", "patches", "encoder", "language_head", "code_head")),),
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
