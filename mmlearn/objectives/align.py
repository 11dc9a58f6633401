"""Two objectives of systems that align before they fuse: contrast with a slow average, and pairs that look right.

Source: Li et al. 2021, "Align before Fuse" (ALBEF), section 3.2.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.objectives.contrastive import same_caption
from mmlearn.objectives.distillation import distilled_targets, soft_cross_entropy
from mmlearn.objectives.matching import hard_negatives

Pair = tuple[Tensor, Tensor]  # of pictures, of texts


def momentum_contrast(
    fast: Pair, slow: Pair, queues: Pair, fits: Bool[Tensor, "b candidates"], scale: float | Tensor, alpha: float
) -> Float[Tensor, ""]:
    r"""Each picture finds its text, and each text its picture, among those of the average.

    .. math:: \ell = -\frac{1}{2b} \sum_i \Big[\sum_j y^I_{ij} \log \mathrm{softmax}_j (s\, u_i^\top \bar v_j)
       + \sum_j y^T_{ij} \log \mathrm{softmax}_j (s\, v_i^\top \bar u_j)\Big]

    over the b candidates of the batch and those of the queue. Each pair holds what the online network (``fast``) and
    its average (``slow``) make of pictures and texts, (b, d), of unit length, and the ``queues`` are (size, d).
    ``fits`` (b, b + size) says which candidates fit row i; ``scale`` is 1/τ. Targets y are those of
    :func:`distilled_targets` with the average as the teacher and weight ``alpha``. With empty queues, ``slow`` the same
    as ``fast`` and α = 0 this is InfoNCE.
    Source: Li et al. 2021 (ALBEF), sections 3.2 and 3.3, equations 1, 2 and 6; He et al. 2020 (MoCo), section 3.
    """
    images, texts = (torch.cat(both) for both in zip(slow, queues))
    losses = []
    for query, teacher, candidates in ((fast[0], slow[0], texts), (fast[1], slow[1], images)):
        target = distilled_targets(scale * teacher @ candidates.T, fits, alpha)
        losses.append(soft_cross_entropy(scale * query @ candidates.T, target))
    return sum(losses) / 2


def ramp(alpha: float, steps: int, length: int) -> float:
    r"""How much an average is trusted after so many steps: it knows nothing at first, so α rises from 0.

    .. math:: \alpha \min(1, \mathrm{steps} / \mathrm{length})

    A ``length`` of 0 is as one of 1. Source: Li et al. 2021 (ALBEF), section 3.5.
    """
    return alpha * min(1.0, steps / max(1, length))


def fitting(caption_id: Int[Tensor, "b"]) -> Bool[Tensor, "b b"]:
    """Which texts of a batch are as good as a row's own; a negative number is of a caption that is like no other."""
    own = torch.eye(len(caption_id), dtype=torch.bool, device=caption_id.device)
    return own | (same_caption(caption_id) & (caption_id >= 0))


@torch.no_grad()
def hard_triples(
    fast: Pair, slow: Pair, fits: Bool[Tensor, "b b"], scale: float | Tensor, generator: torch.Generator
) -> tuple[Int[Tensor, "3*b"], Int[Tensor, "3*b"], Int[Tensor, "3*b"]]:
    """Which picture meets which text, and whether they belong together: for matching.

    All b right pairs come first, then each picture with a wrong text, then a wrong picture with each text. Wrong ones
    are drawn by :func:`~mmlearn.objectives.hard_negatives`, by how similar they are to the average's (``fast``,
    ``slow`` and ``scale`` as in :func:`momentum_contrast`). Raises ``ValueError`` for a row that everything fits.
    Source: Li et al. 2021 (ALBEF), section 3.2.
    """
    wrong_text = hard_negatives(scale * fast[0] @ slow[1].T, fits, generator)
    wrong_image = hard_negatives(scale * fast[1] @ slow[0].T, fits.T, generator)
    rows = torch.arange(len(fits), device=fits.device)
    label = torch.cat([torch.ones_like(rows), torch.zeros_like(rows).repeat(2)])
    return torch.cat([rows, rows, wrong_image]), torch.cat([rows, wrong_text, rows]), label
