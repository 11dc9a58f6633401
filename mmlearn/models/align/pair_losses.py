"""What ALBEF, BLIP and BLIP-2 do with a batch of pairs: check it, and match it."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.objectives import image_text_matching
from mmlearn.tensor_checks import values_are_readable


def read_pairs(
    batch: dict[str, Tensor], system: str
) -> tuple[Float[Tensor, "b c height width"], Int[Tensor, "b t"], Bool[Tensor, "b t"], Int[Tensor, "b"]]:
    """Images, tokens, their mask, and the caption of each row: -1, equal to no other, where the batch does not say.

    Raises ``ValueError`` for no pair, and for rows whose ``match_label`` is 0, because these systems draw their own
    wrong pairs.
    """
    image, tokens, match_label = batch["image"], batch["tokens"], batch.get("match_label")
    if not 1 <= len(image) == len(tokens):
        raise ValueError(f"Pictures and texts are as many, and at least one; got {len(image)} and {len(tokens)}.")
    if match_label is not None and values_are_readable(match_label) and not match_label.all():
        raise ValueError(f"{system} makes its own wrong pairs, and match_label marks some; collate without 'itm'.")
    mask = batch.get("mask", torch.ones_like(tokens, dtype=torch.bool))
    return image, tokens, mask, batch.get("caption_id", tokens.new_full((len(tokens),), -1))


def matching_loss(matched: Float[Tensor, "b 2"], mismatched: Float[Tensor, "n 2"]) -> Float[Tensor, ""]:
    """ITM of pairs that belong together and of some that do not. Source: Li et al. 2021 (ALBEF), section 3.2."""
    logits = torch.cat([matched, mismatched])
    label = torch.arange(len(logits), device=logits.device) < len(matched)
    return image_text_matching(logits, label.long())
