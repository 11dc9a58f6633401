"""Choices that have a gradient: a sample is the argmax of noisy logits, and a softmax stands in for the argmax.

Source: Jang et al. 2017, "Categorical Reparameterization with Gumbel-Softmax"; Maddison et al. 2017, "The Concrete
Distribution".
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def gumbel_noise(shape: tuple[int, ...], *, generator: torch.Generator) -> Float[Tensor, "..."]:
    r"""Noise whose addition to logits makes their argmax a sample of their softmax, :math:`-\log(-\log u)`.

    Source: Jang et al. 2017 (Gumbel-softmax), equation 1.
    """
    return -torch.empty(shape, device=generator.device).exponential_(generator=generator).log()


def annealed(schedule: tuple[float, float, float], steps: Int[Tensor, ""]) -> Float[Tensor, ""]:
    r"""A temperature that falls from step to step: :math:`\tau = \max(\tau_\mathrm{least}, \tau_0\, r^\mathrm{steps})`.

    ``schedule`` is its start, the least that it becomes, and the factor r. Source: Baevski et al. 2020 (wav2vec 2.0),
    section 4.2.
    """
    start, least, factor = schedule
    return (start * factor ** steps.double()).clamp(min=least)  # doubles, because there are many steps


def relaxed_choice(
    logits: Float[Tensor, "*n v"], noise: Float[Tensor, "*n v"], temperature: float | Float[Tensor, ""]
) -> Float[Tensor, "*n v"]:
    r"""A mixture of v choices that comes near to one sample as the temperature falls.

    .. math:: p_v = \frac{\exp((l_v + n_v) / \tau)}{\sum_k \exp((l_k + n_k) / \tau)}

    Source: Jang et al. 2017, equation 2; Maddison et al. 2017, section 3.2.
    """
    return ((logits + noise) / temperature).softmax(-1)


def straight_through(
    logits: Float[Tensor, "*n v"], noise: Float[Tensor, "*n v"], temperature: float | Float[Tensor, ""]
) -> Float[Tensor, "*n v"]:
    r"""One choice among v: exactly one-hot going forward, and with the gradient of a softmax going back.

    The softmax is that of :func:`relaxed_choice`. Source: Baevski et al. 2020 (wav2vec 2.0), equation 1; Jang et al.
    2017, section 2.2.
    """
    soft = relaxed_choice(logits, noise, temperature)
    hard = F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft)
    return hard + (soft - soft.detach())  # the bracket is 0 and leaves 1 exact, which 1 + soft would not be
