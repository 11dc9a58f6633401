"""InfoNCE of a batch that is too large for one device: some rows at a time, on one device or on many.

Arguments are as in :mod:`mmlearn.objectives.contrastive`: embeddings have unit length, ``logit_scale`` is 1/τ, already
exponentiated, and row i of one modality belongs to row i of the other.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmlearn.objectives.contrastive import info_nce, pair_cross_entropy


def accumulated_info_nce(
    image_embedding: Float[Tensor, "b d"],
    text_embedding: Float[Tensor, "b d"],
    logit_scale: Float[Tensor, ""],
    parts: int,
) -> Float[Tensor, ""]:
    r"""What accumulating gradients over ``parts`` equal parts of a batch minimises: the mean of their losses.

    It is not :func:`~mmlearn.objectives.info_nce` of the batch, because a part has only its own wrong answers:
    embeddings that know nothing give ln(b / parts) in place of ln b. Of a loss in which samples do not meet, such as
    the cross-entropy of classes, the mean over equal parts is the mean of the batch.
    Raises ``ValueError`` for parts that are not equal.
    """
    b = len(image_embedding)
    if parts < 1 or b % parts:
        raise ValueError(f"{b} pairs cannot be cut into {parts} equal parts; take a divisor of {b}.")
    pairs = zip(image_embedding.chunk(parts), text_embedding.chunk(parts))
    return torch.stack([info_nce(*pair, logit_scale) for pair in pairs]).mean()


def local_info_nce(
    image_embedding: Float[Tensor, "b d"],
    text_embedding: Float[Tensor, "b d"],
    all_images: Float[Tensor, "all d"],
    all_texts: Float[Tensor, "all d"],
    logit_scale: Float[Tensor, ""],
    first: int,
) -> Float[Tensor, ""]:
    r"""The part of InfoNCE that b rows ask: own images pick among all texts, and own texts among all images.

    .. math:: \ell = -\frac{1}{2b} \sum_{i=1}^{b} \left[\log \mathrm{softmax}_j (s\, u_i^\top V_j)\big|_{j=f+i}
       + \log \mathrm{softmax}_j (s\, v_i^\top U_j)\big|_{j=f+i}\right]

    The first own row is row ``first`` of all. The mean over equal parts is :func:`~mmlearn.objectives.info_nce` of the
    whole batch, and each part needs b · all logits in place of all². Raises ``ValueError`` where own rows end behind
    all rows.
    Source: the option ``local_loss`` of open_clip.
    """
    b = len(image_embedding)
    if not 0 <= first <= len(all_images) - b:
        raise ValueError(f"{b} rows from row {first} on are no part of {len(all_images)} rows.")
    by_image, by_text = logit_scale * image_embedding @ all_texts.T, logit_scale * text_embedding @ all_images.T
    return pair_cross_entropy(by_image, by_text, rows=slice(first, first + b))


def chunked_info_nce(
    image_embedding: Float[Tensor, "b d"],
    text_embedding: Float[Tensor, "b d"],
    logit_scale: Float[Tensor, ""],
    size: int,
) -> Float[Tensor, ""]:
    """:func:`~mmlearn.objectives.info_nce`, exactly, without its matrix: ``size`` rows at a time ask all b.

    Logits are computed again in the backward pass and never kept, so that memory grows with ``size · b`` and not with
    b². Raises ``ValueError`` for a size below 1.
    """
    if size < 1:
        raise ValueError(f"A chunk has at least one row, got {size}.")
    b, total = len(image_embedding), torch.zeros_like(logit_scale)
    for first in range(0, b, size):
        rows = slice(first, min(first + size, b))
        part = checkpoint(info_nce, image_embedding, text_embedding, logit_scale, None, rows, use_reentrant=False)
        total = total + (rows.stop - first) / b * part
    return total
