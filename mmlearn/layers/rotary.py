"""By how much rotary positions turn queries and keys, and how texts become longer than those of training."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float

from mmlearn.layers.config import Config


@dataclass(frozen=True)
class RotaryConfig(Config):
    """By how much queries and keys turn, and how this is slowed down for texts longer than those of training."""

    base: float = 10_000.0
    scaling: str = "default"  # or "linear", or "llama3": see rotary_frequencies
    factor: float = 1.0  # how many times longer texts become
    low_frequency_factor: float = 1.0  # α: what turns less often than this in a text of training is slowed down
    high_frequency_factor: float = 4.0  # β: what turns more often than this is left alone
    trained_length: int = 8192  # tokens, before the texts became longer


def rotary_frequencies(
    head_width: int, rotary: RotaryConfig, device: torch.device | None = None
) -> Float[torch.Tensor, "half"]:
    r"""By what angle each pair of features turns from one position to the next, for :func:`~mmlearn.layers.rotate`.

    .. math:: \theta_i = \mathrm{base}^{-2i/k}, \quad i = 0, \dots, k/2 - 1

    A text that is s = ``factor`` times longer than those of training would turn slow pairs to angles that no layer has
    seen. "linear" slows all down, :math:`\theta_i / s`. "llama3" leaves fast pairs alone, which tell near positions
    apart. A pair that turns :math:`r_i = L \theta_i / 2\pi` times in a text of training, of length L, gets

    .. math:: \theta_i' = (1 - \gamma_i)\, \frac{\theta_i}{s} + \gamma_i\, \theta_i, \quad
       \gamma_i = \mathrm{clip}\!\left(\frac{r_i - \alpha}{\beta - \alpha}, 0, 1\right)

    Raises ``ValueError`` for an odd head width, for another scaling, and for factors that slow nothing down.
    Source: Su et al. 2021 (RoFormer), equation 15; Chen et al. 2023, "Extending Context Window of Large Language Models
    via Positional Interpolation", equation 4; Llama 3's official code, ``apply_scaling``.
    """
    if head_width % 2:
        raise ValueError(f"Rotary positions turn pairs of features: head_width must be even, got {head_width}.")
    low, high = rotary.low_frequency_factor, rotary.high_frequency_factor  # α, β
    if not (rotary.base > 0 and rotary.factor > 0 and low < high):
        raise ValueError(f"A base and a factor are above 0, and the low factor is below the high one; got {rotary}.")
    theta = 1 / rotary.base ** (torch.arange(0, head_width, 2, device=device) / head_width)  # (k/2,)
    if rotary.scaling == "default":
        return theta
    if rotary.scaling == "linear":
        return theta / rotary.factor
    if rotary.scaling == "llama3":
        turns = rotary.trained_length * theta / (2 * math.pi)  # r, (k/2,)
        kept = ((turns - low) / (high - low)).clamp(0, 1)  # γ, (k/2,)
        return (1 - kept) * theta / rotary.factor + kept * theta
    raise ValueError(f"A rotary scaling is default, linear or llama3, not {rotary.scaling!r}.")
