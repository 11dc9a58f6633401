"""Contrast in a batch of which some pairs are wrong on purpose, because matching learns from them at the same time."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def matched_rows(matched: Bool[Tensor, "b"]) -> Bool[Tensor, "b"]:
    """Which rows learn what only true pairs can teach: the matched ones, or all where none is, as in FLAVA."""
    return matched | ~matched.any()


def matched_info_nce(
    image_embedding: Float[Tensor, "b d"],
    text_embedding: Float[Tensor, "b d"],
    logit_scale: Float[Tensor, ""],
    matched: Bool[Tensor, "b"],
    caption_id: Int[Tensor, "b"] | None = None,
) -> Float[Tensor, ""]:
    r"""InfoNCE in which the rows of wrong pairs ask nothing, but are wrong answers to all others.

    .. math:: \ell = -\frac{1}{2|R|} \sum_{i \in R} \left[\log \mathrm{softmax}_j (s\, u_i^\top v_j)\big|_{j=i}
       + \log \mathrm{softmax}_j (s\, v_i^\top u_j)\big|_{j=i}\right], \quad R = \{i : \text{pair } i \text{ is true}\}

    Where all pairs are true it is :func:`~mmlearn.objectives.info_nce`. Texts with the same ``caption_id`` are all
    right, each with an equal share. Embeddings that know nothing give ln b. Raises ``ValueError`` without a pair.
    Source: Singh et al. 2022 (FLAVA), official code, ``FLAVAGlobalContrastiveLoss``.
    """
    if not len(matched):
        raise ValueError("A contrast needs at least one pair, got none.")
    asks = matched_rows(matched)
    own = torch.eye(len(matched), dtype=torch.bool, device=matched.device)
    fits = own if caption_id is None else own | (caption_id[:, None] == caption_id)
    logits = logit_scale * image_embedding @ text_embedding.T
    total = torch.zeros_like(logits[:, 0])  # (b,)
    for scores, right in ((logits, fits), (logits.T, own | (fits & asks))):  # a picture of a wrong pair fits no text
        share = right.to(scores.dtype) / right.sum(1, keepdim=True)
        total = total - (scores.log_softmax(1) * share).sum(1)
    return (total * asks).sum() / (2 * asks.sum())
