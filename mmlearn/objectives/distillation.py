"""Distillation: a network learns from what another one says, beside its labels.

In momentum distillation a slow copy of the network, the momentum encoder, is the teacher, and labels get softer.
Captions from the web are noisy, and another text of the batch may fit as well. The teacher, an exponential moving
average of past weights, gives part of the target. In knowledge inheritance the teacher is a smaller network that has
learned already, and is trusted less and less.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.tensor_checks import values_are_readable


@torch.no_grad()
def momentum_update(slow: Float[Tensor, "..."], online: Float[Tensor, "..."], momentum: float) -> Float[Tensor, "..."]:
    r"""A weight of the momentum encoder, moved a little toward the one that is learned now.

    .. math:: \bar\theta' = m\, \bar\theta + (1 - m)\, \theta

    With m = 1 it stays, with m = 0 it jumps. It has no gradient: it follows, it is not trained.
    Source: He et al. 2020 (MoCo), equation 2.
    """
    return torch.lerp(slow, online, 1 - momentum)


def momentum_weights(weights: Float[Tensor, "steps *n"], momentum: float) -> Float[Tensor, "*n"]:
    r"""Weights of a momentum encoder that began at ``weights[0]`` and followed each of the later ones in turn.

    .. math:: \bar\theta_s = m^s\, \theta_0 + (1 - m) \sum_{i=1}^{s} m^{s-i}\, \theta_i

    Weights i are those after the i-th step of the optimiser: first comes the step, then the :func:`momentum_update`, so
    what the last step has learned counts as well. Raises ``ValueError`` for no weights.
    Source: He et al. 2020 (MoCo), equation 2, step by step.
    """
    if not len(weights):
        raise ValueError("A momentum encoder starts at the weights before the first step; got none.")
    slow = weights[0].detach()
    for online in weights[1:]:
        slow = momentum_update(slow, online, momentum)
    return slow


@torch.no_grad()
def update_momentum_encoder(momentum_encoder: nn.Module, online: nn.Module, momentum: float) -> None:
    r"""Move the momentum encoder a little toward the trained network; call it after the optimiser's step.

    Each parameter gets its :func:`momentum_update`, in place. Buffers, such as running statistics, are copied.
    Raises ``ValueError`` for a momentum outside [0, 1], and for two networks whose parameters differ in names or
    shapes.
    Source: He et al. 2020 (MoCo), equation 2; Li et al. 2021 (ALBEF), section 3.3.
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be from 0 to 1, got {momentum}.")
    for kind in ("named_parameters", "named_buffers"):
        slow, fast = dict(getattr(momentum_encoder, kind)()), dict(getattr(online, kind)())
        if {name: x.shape for name, x in slow.items()} != {name: x.shape for name, x in fast.items()}:
            raise ValueError("The momentum encoder and the online network differ: build both from one configuration.")
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
    Raises ``ValueError`` for an α outside [0, 1], and, on a CPU, for a row that nothing fits.
    Source: Li et al. 2021 (ALBEF), section 3.3, equation 6.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be from 0 to 1, got {alpha}.")
    if values_are_readable(positives) and not positives.any(1).all():
        raise ValueError("Each row needs at least one candidate that fits it: mark one in positives.")
    label = positives.to(teacher_logits.dtype) / positives.sum(1, keepdim=True)
    return alpha * teacher_logits.softmax(-1) + (1 - alpha) * label


def inherit_knowledge(
    loss: Float[Tensor, ""],
    student_logits: Float[Tensor, "n c"],
    teacher_logits: Float[Tensor, "n c"],
    alpha: float,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    r"""Knowledge inheritance: a small model that has learned already teaches a larger one, less and less.

    .. math:: \ell = (1 - \alpha)\, \ell_\text{self} + \alpha\, \tau^2\, \frac{1}{n} \sum_i
       \mathrm{KL}\!\left(\mathrm{softmax}(\bar z_i / \tau) \,\|\, \mathrm{softmax}(z_i / \tau)\right)

    With α = 0 it is ``loss``, bit for bit, and the teacher is not looked at. The teacher gets no gradient. Raises
    ``ValueError`` for an α outside [0, 1], a temperature that is not above 0, or logits of other shapes.
    Source: Qin et al. 2022 (Knowledge Inheritance), section 3, equations 2 and 3.
    """
    if not 0 <= alpha <= 1 or not temperature > 0:
        raise ValueError(f"alpha is from 0 to 1 and temperature above 0, got {alpha} and {temperature}.")
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"Teacher and student speak of the same positions and tokens; got logits {tuple(teacher_logits.shape)} and "
            f"{tuple(student_logits.shape)}."
        )
    if alpha == 0:
        return loss
    student = (student_logits / temperature).log_softmax(-1)
    teacher = (teacher_logits.detach() / temperature).log_softmax(-1)
    divergence = F.kl_div(student, teacher, reduction="sum", log_target=True) / max(len(student), 1)
    return (1 - alpha) * loss + alpha * temperature**2 * divergence


def inheritance_rate(step: int, steps: int, start: float = 1.0) -> float:
    r"""How much the teacher is trusted at a step: less and less, and not at all from step ``steps`` on.

    .. math:: \alpha_t = \alpha_0 \max(0,\, 1 - t / T)

    Raises ``ValueError`` for no steps, or a start outside [0, 1]. Source: Qin et al. 2022 (Knowledge Inheritance),
    section 3, dynamic inheritance rate.
    """
    if steps < 1 or not 0 <= start <= 1:
        raise ValueError(f"There is at least one step, and the start is from 0 to 1; got {steps} and {start}.")
    return start * max(0.0, 1 - step / steps)
