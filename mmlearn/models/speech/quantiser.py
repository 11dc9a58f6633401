"""Product quantisation: features become one entry of each of a few codebooks, by a choice with a gradient."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmlearn.layers.gumbel import straight_through


class Quantised(NamedTuple):
    """What :class:`ProductQuantiser` returns."""

    vectors: Float[Tensor, "*n d"]  # the chosen entries, concatenated
    codes: Int[Tensor, "*n groups"]  # their indices
    probability: Float[Tensor, "*n groups entries"]  # of each choice, without noise; one-hot where there was none


class ProductQuantiser(nn.Module):
    r"""Choose one of V entries in each of G codebooks, and concatenate them: (…, input) → (…, width).

    .. math:: l = W z + b \in \mathbb{R}^{G \times V}, \quad q = [e_{1, v_1};\, \dots;\, e_{G, v_G}]

    With ``noise`` (…, G, V) from :func:`~mmlearn.layers.gumbel.gumbel_noise` the choice is a sample, and its gradient
    is that of a softmax of temperature τ. Without noise the choice is the argmax and has no gradient. Raises
    ``ValueError`` where ``width`` is no multiple of the codebooks.
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
        vectors = torch.einsum("...gv,gvd->...gd", choice.to(table), table)  # a product, so that choice has a gradient
        return Quantised(vectors.flatten(-2), choice.argmax(-1), probability)
