"""Objectives of systems that align before they fuse: contrast with a momentum encoder, and wrong pairs that look right.

Source: Li et al. 2021, "Align before Fuse" (ALBEF), section 3.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.objectives.all_gather import EVERY
from mmlearn.objectives.distillation import distilled_targets, soft_cross_entropy
from mmlearn.objectives.draws import uncompiled
from mmlearn.objectives.masked import IGNORED, masked_cross_entropy
from mmlearn.objectives.matching import hard_negatives
from mmlearn.objectives.matching import positive_pairs as positive_pairs  # which is asked for here as well

Pair = tuple[Tensor, Tensor]  # of pictures, of texts


def momentum_contrast(
    embeddings: Pair,
    momentum_embeddings: Pair,
    queues: Pair,
    positives: Bool[Tensor, "b candidates"],
    logit_scale: float | Tensor,
    alpha: float,
    rows: slice = EVERY,
) -> Float[Tensor, ""]:
    r"""Each picture finds its text, and each text its picture, among the embeddings of the momentum encoder.

    .. math:: \ell = -\frac{1}{2b} \sum_i \Big[\sum_j y^I_{ij} \log \mathrm{softmax}_j (s\, u_i^\top \bar v_j)
       + \sum_j y^T_{ij} \log \mathrm{softmax}_j (s\, v_i^\top \bar u_j)\Big]

    The candidates are those of the batch and of the queue. Each pair holds what the trained encoders, or the momentum
    encoders, make of pictures and of texts: (b, d), of unit length; the ``queues`` are (size, d). Where processes share
    a batch, the momentum embeddings are those of all, of which ``rows`` are this process's.
    ``positives`` (b, all + size) says which candidates fit row i; ``logit_scale`` s is 1/τ. Targets y are those of
    :func:`distilled_targets`, with the momentum encoder as the teacher and weight ``alpha``. With empty queues, equal
    encoders and α = 0 this is InfoNCE.
    Source: Li et al. 2021 (ALBEF), sections 3.2 and 3.3, equations 1, 2 and 6; He et al. 2020 (MoCo), section 3.
    """
    (image, text), (momentum_image, momentum_text) = embeddings, momentum_embeddings
    images, texts = torch.cat([momentum_image, queues[0]]), torch.cat([momentum_text, queues[1]])
    losses = []
    for query, teacher, candidates in ((image, momentum_image, texts), (text, momentum_text, images)):
        target = distilled_targets(logit_scale * teacher[rows] @ candidates.T, positives, alpha)
        losses.append(soft_cross_entropy(logit_scale * query @ candidates.T, target))
    return torch.stack(losses).sum() / 2


def distillation_ramp(alpha: float, steps: int, length: int) -> float:
    r"""How much a momentum encoder is trusted after so many steps: it knows nothing at first, so α rises from 0.

    .. math:: \alpha \min(1, \mathrm{steps} / \mathrm{length})

    A ``length`` of 0 is as one of 1. Source: Li et al. 2021 (ALBEF), section 3.5.
    """
    return alpha * min(1.0, steps / max(1, length))


@uncompiled
@torch.no_grad()
def hard_negative_pairs(
    embeddings: Pair,
    momentum_embeddings: Pair,
    positives: Bool[Tensor, "b b"],
    logit_scale: float | Tensor,
    generator: torch.Generator,
) -> tuple[Int[Tensor, "2*b"], Int[Tensor, "2*b"]]:
    """Wrong pairs for matching: which picture meets which text.

    First each picture meets a wrong text, then each text a wrong picture. They are drawn by
    :func:`~mmlearn.objectives.hard_negatives`, by how similar they are to those of the momentum encoder (arguments as
    in :func:`momentum_contrast`). Raises ``ValueError`` for a row that everything fits.
    Source: Li et al. 2021 (ALBEF), section 3.2.
    """
    (image, text), (momentum_image, momentum_text) = embeddings, momentum_embeddings
    wrong_text = hard_negatives(logit_scale * image @ momentum_text.T, positives, generator)
    wrong_image = hard_negatives(logit_scale * text @ momentum_image.T, positives.T, generator)
    rows = torch.arange(len(positives), device=positives.device)
    return torch.cat([rows, wrong_image]), torch.cat([wrong_text, rows])


def masked_distillation(
    logits: Float[Tensor, "b t v"], label: Int[Tensor, "b t"], teacher_logits: Float[Tensor, "b t v"], alpha: float
) -> Float[Tensor, ""]:
    r"""Masked words, of which a teacher's guess is α of the target.

    .. math:: \ell = \frac{1}{|m|} \sum_{i \in m} \Big[-(1 - \alpha) \log p_i(w_i)
       - \alpha \sum_w \bar p_i(w) \log p_i(w)\Big], \quad p = \mathrm{softmax}(z)

    ``label`` is -100 where nothing is masked. The teacher gets no gradient. Errors as in
    :func:`~mmlearn.objectives.masked_cross_entropy`. Source: Li et al. 2021 (ALBEF), equation 7.
    """
    masked = label != IGNORED
    soft = -(teacher_logits.detach().softmax(-1) * logits.log_softmax(-1)).sum(-1)
    soft = (soft * masked).sum() / masked.sum().clamp(min=1)
    return (1 - alpha) * masked_cross_entropy(logits, label) + alpha * soft
