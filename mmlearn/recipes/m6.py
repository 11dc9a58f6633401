"""The recipe of M6: what it reads, what it learns, and how that is measured."""

from dataclasses import dataclass, replace

import torch

from mmlearn.data.fields import Batch, Label
from mmlearn.data.fields.instructions import TextTarget
from mmlearn.data.fields.labels import Sizes, padded
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.evaluation.instructions import text_accuracy
from mmlearn.models.many_tasks.m6 import M6, M6Config
from mmlearn.objectives.denoising import infill
from mmlearn.recipes import Objective, OneOf, Recipe
from mmlearn.recipes.shared.unified_vocabulary import CAPTION, GROUNDING, INFILLING, NAMING, READS, TOKENS, VQA


@dataclass(frozen=True)
class Visibility(Label):
    """``modality_mask`` (b, 2): whether image and text are visible, which of three encodings one stack does."""

    image: bool = True
    text: bool = True

    holds = {"modality_mask": "Bool b 2"}

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        return batch | {"modality_mask": torch.tensor([self.image, self.text]).expand(len(batch["tokens"]), 2)}


@dataclass(frozen=True)
class DenoisingTarget(TextTarget):
    """As :class:`~mmlearn.data.fields.instructions.TextTarget` of a caption: read with gaps, written whole."""

    share: float = 0.3

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        found = super().__call__(batch, generator, sizes)
        start, end = (batch["tokens"].new_tensor([token]) for token in (Tokenizer.start_token, Tokenizer.end_token))
        texts = []
        for row, real in zip(found["target"], found["target_mask"]):
            spoilt = infill(row[real][:-1], Tokenizer.mask_token, generator=generator, share=self.share).tokens
            texts.append(torch.cat([start, spoilt, end]))
        return found | dict(zip(("tokens", "mask"), padded(texts)))


LOSSES = TOKENS | {"balance": None}
DENOISING = Objective(
    "denoising", LOSSES, labels=(DenoisingTarget(), Visibility(image=False)), measures=(text_accuracy("denoising"),)
)
RECIPE = Recipe(
    M6,
    M6Config,
    reads=READS,
    learns=OneOf(
        replace(CAPTION, chance=LOSSES, labels=(*CAPTION.labels, Visibility(text=False))),
        DENOISING,
        *(
            replace(one, chance=LOSSES, labels=(*one.labels, Visibility()))
            for one in (VQA, GROUNDING, NAMING, INFILLING)
        ),
    ),
    writes=True,
    architecture="""
    image -> one stack [both ways over what is read, causal over the target] -> router -> experts [one] -> !next token
    words -> one stack
    target [one position later] -> one stack
    router -> !balance
    """,
)
