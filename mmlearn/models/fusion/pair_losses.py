"""What an encoder of pictures with their texts learns: hidden words, whether both belong together, answers."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from mmlearn.objectives.masked import IGNORED, masked_cross_entropy
from mmlearn.objectives.matching import image_text_matching


def pair_losses(
    system: nn.Module, output: Any, batch: dict[str, Tensor], **more: Float[Tensor, ""]
) -> dict[str, Float[Tensor, ""]]:
    """``mlm``, ``itm`` and ``vqa``: those with labels in the batch and a head to learn; and what the system has more.

    ``system`` has ``token_logits``, and a ``masked_language_head``, ``matching_head`` and ``answer_head``, or None for
    them; ``output`` is what it made of the batch: ``tokens`` (b, t, d), ``match_logits`` and ``answer_logits``. Words
    count in pairs that match. Raises ``ValueError`` where there is nothing to learn.
    Source: Kim et al. 2021 (ViLT), section 3.2, for words and matching.
    """
    label, match, losses = batch.get("token_label"), batch.get("match_label"), {}
    if label is not None and system.masked_language_head is not None:
        masked = label != IGNORED if match is None else (label != IGNORED) & (match == 1)[:, None]
        losses["mlm"] = masked_cross_entropy(system.token_logits(output.tokens[masked]), label[masked])
    if match is not None and system.matching_head is not None:
        losses["itm"] = image_text_matching(output.match_logits, match)
    losses |= more
    if "answer" in batch and system.answer_head is not None:
        losses["vqa"] = system.answer_head.loss(output.answer_logits, batch["answer"])
    if not losses:
        raise ValueError(
            f"Nothing to learn: this {type(system).__name__} needs token_label, match_label or answer in the batch, "
            "and the head that goes with it in its configuration."
        )
    return losses
