"""What the systems of this family learn from a text and its picture: hidden words, matching, answers, hidden regions.

Each function gives a loss under its name. It gives nothing where the batch lacks the label or the system the head. A
pair whose ``match_label`` is 0 has the text of another picture; most systems guess nothing in such a pair.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.objectives.masked import IGNORED, masked_cross_entropy
from mmlearn.objectives.matching import image_text_matching

Batch = dict[str, Tensor]
Losses = dict[str, Float[Tensor, ""]]


def matched_pairs(batch: Batch) -> Bool[Tensor, "b 1"]:
    """Which texts belong to their pictures. Without a ``match_label`` all do."""
    if "match_label" not in batch:
        return torch.ones_like(batch["tokens"][:, :1], dtype=torch.bool)
    return batch["match_label"][:, None] == 1


def masked_words(
    system: nn.Module,
    output: Any,
    batch: Batch,
    matched_only: bool = True,
    name: str = "mlm",
    label: str = "token_label",
) -> Losses:
    """``mlm``: ``token_label`` (b, t) is the true token where one was hidden, and -100 elsewhere.

    Other words, such as those of one role alone, have another ``label`` and another ``name``.
    Source: Devlin et al. 2019 (BERT), section 3.1; Kim et al. 2021 (ViLT), section 3.2, for matched pairs only.
    """
    if label not in batch or system.language_head is None:
        return {}
    masked = batch[label] != IGNORED
    if matched_only:
        masked = masked & matched_pairs(batch)
    logits = system.token_logits(output.tokens[masked])  # only of hidden words, because the vocabulary is large
    return {name: masked_cross_entropy(logits, batch[label][masked])}


def matching(system: nn.Module, output: Any, batch: Batch) -> Losses:
    """``itm``: ``match_label`` (b,) is 1 where text and picture belong together, and 0 elsewhere."""
    if "match_label" not in batch or system.match_head is None:
        return {}
    return {"itm": image_text_matching(output.match_logits, batch["match_label"])}


def answers(system: nn.Module, output: Any, batch: Batch) -> Losses:
    """``vqa``: ``answer`` is one (b,), -100 where nothing is asked, or a score for each answer (b, answers).

    A question about another picture has no answer here, so only matched pairs count.
    Source: Tan & Bansal 2019 (LXMERT), section 3.1.3.
    """
    if "answer" not in batch or system.answer_head is None:
        return {}
    matched = matched_pairs(batch)[:, 0]
    return {"vqa": system.answer_head.loss(output.answer_logits[matched], batch["answer"][matched])}


def hidden_regions(batch: Batch, matched_only: bool = True) -> Bool[Tensor, "b p"]:
    """Which regions are to be guessed: those where ``masked_regions`` (b, p) is True and that are real.

    ``region_target`` (b, p, f) is what they held, ``region_classes`` (b, p, classes) what a detector saw.
    """
    hidden = batch["masked_regions"]
    if "region_mask" in batch:
        hidden = hidden & batch["region_mask"]
    return hidden & matched_pairs(batch) if matched_only else hidden


def of_hidden(batch: Batch, label: str, hidden: Bool[Tensor, "b p"]) -> tuple[Tensor, Bool[Tensor, " hidden"]]:
    """What the hidden regions held, as ``label`` says, and that all of these were hidden.

    A head reads only them, because features and classes are many. ``ValueError`` for labels of other regions.
    """
    if batch[label].shape[:2] != hidden.shape:
        raise ValueError(
            f"{label} has a row for each of {tuple(hidden.shape)} regions; its shape is {tuple(batch[label].shape)}."
        )
    return batch[label][hidden], hidden[hidden]


def learnable(system: nn.Module, batch: Batch, losses: Losses) -> Losses:
    """These losses. ``ValueError`` where the batch has no row, or nothing that this system learns from."""
    if not len(batch["tokens"]):
        raise ValueError("A batch holds at least one text and picture.")
    if not losses:
        raise ValueError(
            f"Nothing to learn: this {type(system).__name__} has no head for any label of a batch with "
            f"{', '.join(batch)}; its loss says which labels there are, its configuration which heads."
        )
    return losses
