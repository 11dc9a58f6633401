"""The pretraining losses of this family: masked words, image-text matching, answers and masked regions.

Each function returns its loss under its name, or nothing where the batch lacks the label or the system lacks the head.
A pair whose ``match_label`` is 0 has the text of another picture; most systems predict nothing in such a pair.
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
    """Which texts belong to their pictures. Without a ``match_label`` all of them do."""
    if "match_label" not in batch:
        return torch.ones_like(batch["tokens"][:, :1], dtype=torch.bool)
    return batch["match_label"][:, None] == 1


def mlm_loss(
    system: nn.Module,
    output: Any,
    batch: Batch,
    matched_only: bool = True,
    name: str = "mlm",
    label: str = "token_label",
) -> Losses:
    """``mlm``: ``token_label`` (b, t) is the true token where one was masked, and -100 elsewhere.

    Words of one role alone, as in ERNIE-ViL, come under another ``label`` and another ``name``.
    Source: Devlin et al. 2019 (BERT), section 3.1; Kim et al. 2021 (ViLT), section 3.2, for matched pairs only.
    """
    if label not in batch or system.language_head is None:
        return {}
    masked = batch[label] != IGNORED
    if matched_only:
        masked = masked & matched_pairs(batch)
    # The head reads masked words alone, because the vocabulary is large.
    positions = masked.nonzero(as_tuple=True)  # a mask as an index would wait for the GPU at each use
    logits = system.token_logits(output.tokens[positions])  # (masked, v)
    return {name: masked_cross_entropy(logits, batch[label][positions])}


def itm_loss(system: nn.Module, output: Any, batch: Batch) -> Losses:
    """``itm``: ``match_label`` (b,) is 1 where text and picture belong together, and 0 elsewhere."""
    if "match_label" not in batch or system.match_head is None:
        return {}
    return {"itm": image_text_matching(output.match_logits, batch["match_label"])}


def vqa_loss(system: nn.Module, output: Any, batch: Batch) -> Losses:
    """``vqa``: ``answer`` is one (b,), -100 where there is no question, or a score for each answer (b, answers).

    A question about another picture has no answer here, so only matched pairs count.
    Source: Tan & Bansal 2019 (LXMERT), section 3.1.3.
    """
    if "answer" not in batch or system.answer_head is None:
        return {}
    matched = matched_pairs(batch)[:, 0].nonzero()[:, 0]  # (matched,)
    return {"vqa": system.answer_head.loss(output.answer_logits[matched], batch["answer"][matched])}


def regions_to_predict(batch: Batch, matched_only: bool = True) -> Bool[Tensor, "b p"]:
    """Which regions a system predicts: real ones where ``masked_regions`` (b, p) is True.

    ``region_target`` (b, p, f) holds their features, ``region_classes`` (b, p, classes) the detector's classes. Heads
    read all regions, and the losses of :mod:`~mmlearn.objectives.masked` leave out the others: to pick the masked ones
    would wait for the GPU.
    """
    masked = batch["masked_regions"]
    if "region_mask" in batch:
        masked = masked & batch["region_mask"]
    return masked & matched_pairs(batch) if matched_only else masked


def check_losses(system: nn.Module, batch: Batch, losses: Losses) -> Losses:
    """The losses, unchanged. ``ValueError`` where the batch has no row, or nothing that this system learns from."""
    if not len(batch["tokens"]):
        raise ValueError("A batch holds at least one text and picture.")
    if not losses:
        raise ValueError(
            f"Nothing to learn: this {type(system).__name__} has no head for any label of a batch with "
            f"{', '.join(batch)}; its loss says which labels there are, its configuration which heads."
        )
    return losses
