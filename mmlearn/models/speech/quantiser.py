"""Product quantisation: features become one entry of each of a few codebooks, and the choice has a gradient."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn


class Quantised(NamedTuple):
    """What :class:`ProductQuantiser` returns."""

    vectors: Float[Tensor, "*n d"]  # the chosen entries, one after the other
    codes: Int[Tensor, "*n groups"]  # which they are
    probability: Float[Tensor, "*n groups entries"]  # of each choice, without noise; one-hot where there was none


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


def straight_through(
    logits: Float[Tensor, "*n v"], noise: Float[Tensor, "*n v"], temperature: float | Float[Tensor, ""]
) -> Float[Tensor, "*n v"]:
    r"""One choice among v: exactly one-hot going forward, and with the gradient of a softmax going back.

    .. math:: p_v = \frac{\exp((l_v + n_v) / \tau)}{\sum_k \exp((l_k + n_k) / \tau)}

    Source: Baevski et al. 2020 (wav2vec 2.0), equation 1; Jang et al. 2017, section 2.2.
    """
    soft = ((logits + noise) / temperature).softmax(-1)
    hard = F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft)
    return hard + (soft - soft.detach())  # the bracket is 0 and leaves 1 exact, which 1 + soft would not be


class ProductQuantiser(nn.Module):
    r"""Choose one of V entries in each of G codebooks, and put them side by side: (…, input) → (…, width).

    .. math:: l = W z + b \in \mathbb{R}^{G \times V}, \quad q = [e_{1, v_1};\, \dots;\, e_{G, v_G}]

    With ``noise`` (…, G, V) from :func:`gumbel_noise` the choice is a sample, and its gradient is that of a softmax of
    temperature τ. Without noise the choice is the argmax and has no gradient. Raises ``ValueError`` where ``width`` is
    no multiple of the codebooks.
    Source: Baevski et al. 2020 (wav2vec 2.0), section 2, quantization module; Jegou et al. 2011 for the product.
    """

    def __init__(self, input_width: int, groups: int, entries: int, width: int):
        super().__init__()
        if width % groups:
            raise ValueError(f"width {width} is no multiple of the {groups} codebooks, which share it.")
        self.groups = groups
        self.logits = nn.Linear(input_width, groups * entries)
        self.entries = nn.Parameter(torch.rand(groups * entries, width // groups))
        nn.init.normal_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)

    def forward(
        self,
        x: Float[Tensor, "*n input"],
        noise: Float[Tensor, "*n groups entries"] | None = None,
        temperature: float | Float[Tensor, ""] = 1.0,
    ) -> Quantised:
        logits = rearrange(self.logits(x), "... (g v) -> ... g v", g=self.groups)
        if noise is None:
            choice = F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits)
            probability = choice
        else:
            choice = straight_through(logits.float(), noise.to(logits.device), temperature)
            probability = logits.float().softmax(-1)
        table = rearrange(self.entries, "(g v) d -> g v d", g=self.groups)
        vectors = torch.einsum("...gv,gvd->...gd", choice.to(table), table)
        return Quantised(vectors.flatten(-2), choice.argmax(-1), probability)
