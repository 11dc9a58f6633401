"""Momentum distillation: a slow average of the network teaches the network itself, and labels become softer.

Captions from the web are noisy, and another text of the batch may fit as well. The teacher, an average over past
weights, gives part of the target.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


@torch.no_grad()
def moving_average(
    average: Float[Tensor, "..."], online: Float[Tensor, "..."], momentum: float
) -> Float[Tensor, "..."]:
    r"""A slow average, moved a little toward what is learned now.

    .. math:: \bar\theta' = m\, \bar\theta + (1 - m)\, \theta

    With m = 1 it stays, with m = 0 it jumps. It has no gradient: it follows, it is not trained.
    Source: He et al. 2020 (MoCo), equation 2.
    """
    return torch.lerp(average, online, 1 - momentum)


def trailing_average(weights: Float[Tensor, "steps *n"], momentum: float) -> Float[Tensor, "*n"]:
    r"""Where a :func:`moving_average` stands that began at ``weights[0]`` and followed each of the later ones in turn.

    .. math:: \bar\theta_s = m^s\, \theta_0 + (1 - m) \sum_{i=1}^{s} m^{s-i}\, \theta_i

    Weights i are those after the i-th step of the optimiser: first comes the step, then the average, so what the last
    step has learned counts as well. Raises ``ValueError`` for no weights.
    Source: He et al. 2020 (MoCo), equation 2, step by step.
    """
    if not len(weights):
        raise ValueError("An average starts at the weights before the first step; got none.")
    average = weights[0].detach()
    for online in weights[1:]:
        average = moving_average(average, online, momentum)
    return average


@torch.no_grad()
def update_average(average: nn.Module, online: nn.Module, momentum: float) -> None:
    r"""Move the averaged network a little toward the trained one; call it after the optimiser's step.

    Each parameter becomes its :func:`moving_average`, in place. Buffers, such as running statistics, are copied.
    Raises ``ValueError`` for a momentum outside [0, 1], and for two networks whose parameters differ in names or
    shapes.
    Source: He et al. 2020 (MoCo), equation 2; Li et al. 2021 (ALBEF), section 3.3.
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be from 0 to 1, got {momentum}.")
    for kind in ("named_parameters", "named_buffers"):
        slow, fast = dict(getattr(average, kind)()), dict(getattr(online, kind)())
        if {name: x.shape for name, x in slow.items()} != {name: x.shape for name, x in fast.items()}:
            raise ValueError("The average and the online network differ: build both from the same configuration.")
        for name, x in slow.items():
            if kind == "named_parameters":
                x.lerp_(fast[name], 1 - momentum)
            else:
                x.copy_(fast[name])


def soft_cross_entropy(logits: Float[Tensor, "n c"], target: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    r"""Cross-entropy against a distribution instead of one class.

    .. math:: \ell = -\frac{1}{n} \sum_i \sum_j y_{ij} \log \mathrm{softmax}(z_i)_j

    Raises ``ValueError`` where there is no row. Source: Li et al. 2021 (ALBEF), equations 2 and 6.
    """
    if not len(logits):
        raise ValueError("A cross-entropy needs at least one row of logits, got none.")
    return F.cross_entropy(logits, target)


@torch.no_grad()
def distilled_targets(
    teacher_logits: Float[Tensor, "n c"], positives: Bool[Tensor, "n c"], alpha: float
) -> Float[Tensor, "n c"]:
    r"""A target that trusts the label with 1 - α and the teacher with α.

    .. math:: y_{ij} = \alpha\, \mathrm{softmax}_j(\bar z_i) + (1 - \alpha) \frac{[j \in P_i]}{|P_i|}

    ``positives`` says which candidates fit a row. With α = 0 the teacher has no say. The paper writes the
    teacher's part as a KL divergence: the same gradient. The target itself has none.
    Raises ``ValueError`` for an α outside [0, 1], and for a row that nothing fits.
    Source: Li et al. 2021 (ALBEF), section 3.3, equation 6.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be from 0 to 1, got {alpha}.")
    if not positives.any(1).all():
        raise ValueError("Each row needs at least one candidate that fits it: mark one in positives.")
    label = positives.to(teacher_logits.dtype) / positives.sum(1, keepdim=True)
    return alpha * teacher_logits.softmax(-1) + (1 - alpha) * label
