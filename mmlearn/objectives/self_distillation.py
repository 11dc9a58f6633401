r"""Self-distillation: a student that sees gaps predicts what its own slow copy makes of the whole input.

The target is the mean of the copy's last layers, so it knows the context of each position, whatever the modality. The
copy has no gradient. Source: Baevski et al. 2022 (data2vec).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


@torch.no_grad()
def contextual_targets(
    layers: Sequence[Float[Tensor, "b n d"]], top: int, real: Bool[Tensor, "b n"] | None = None, over_time: bool = False
) -> Float[Tensor, "b n d"]:
    r"""The mean of the last ``top`` layers of a teacher, each normalised first, so that none outweighs the others.

    .. math:: y_t = \frac{1}{K} \sum_{l=L-K+1}^{L} \hat a_t^l

    :math:`\hat a` has mean 0 and variance 1 over the features of each token, or with ``over_time`` over the ``real``
    tokens of each feature, because neighbouring frames of speech are much alike. Targets have no gradient.
    Raises ``ValueError`` for more layers than there are, or none.
    Source: Baevski et al. 2022 (data2vec), section 3.3; official code.
    """
    if not 1 <= top <= len(layers):
        raise ValueError(f"Targets are the mean of 1 to {len(layers)} layers, not of {top}.")
    if not over_time:
        return torch.stack([F.layer_norm(layer, layer.shape[-1:]) for layer in layers[-top:]]).mean(0)
    mask = torch.ones_like(layers[0][..., :1]) if real is None else real[..., None].to(layers[0])
    count = mask.sum(1, keepdim=True).clamp(min=1)
    total = torch.zeros_like(layers[0])
    for layer in layers[-top:]:
        layer = layer.masked_fill(mask == 0, 0)
        centred = (layer - layer.sum(1, keepdim=True) / count) * mask
        total = total + centred * (centred.square().sum(1, keepdim=True) / count + 1e-5).rsqrt()
    return total / top


def masked_regression(
    prediction: Float[Tensor, "b n d"], target: Float[Tensor, "b n d"], masked: Bool[Tensor, "b n"], beta: float = 1.0
) -> Float[Tensor, ""]:
    r"""The distance of what the student says at hidden positions, square when small and straight when large.

    .. math:: \ell = \frac{1}{|m|\, d} \sum_{t \in m} \sum_k s(y_{tk} - f_{tk}), \quad
       s(x) = \frac{x^2}{2 \beta} \text{ if } |x| \le \beta \text{, else } |x| - \beta / 2

    With β = 0 it is the squared distance, as for speech. With nothing hidden it is 0, not NaN. Raises ``ValueError``
    for a β below 0. Source: Baevski et al. 2022 (data2vec), objective; official code.
    """
    if beta < 0:
        raise ValueError(f"beta is 0 or more, got {beta}.")
    if beta:
        error = F.smooth_l1_loss(prediction, target, reduction="none", beta=beta)
    else:
        error = F.mse_loss(prediction, target, reduction="none")
    return error.masked_fill(~masked[..., None], 0).sum() / (masked.sum() * target.shape[-1]).clamp(min=1)


def rising_decay(step: int, start: float, end: float, steps: int) -> float:
    r"""How slowly the teacher follows: faster at first, when the student is random, and constant after so many steps.

    .. math:: \tau_t = \tau_0 + (\tau_e - \tau_0) \min(1, t / \tau_n)

    Raises ``ValueError`` for decays outside [0, 1] or that fall.
    Source: Baevski et al. 2022 (data2vec), official code, ``get_annealed_rate``.
    """
    if not 0 <= start <= end <= 1:
        raise ValueError(f"A decay rises between 0 and 1; got {start} and {end}.")
    return end if steps <= 0 else start + (end - start) * min(1.0, step / steps)
