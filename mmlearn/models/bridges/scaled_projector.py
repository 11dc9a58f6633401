"""A projector whose outputs are as long as the embeddings of words from the first step on. That is ours."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmlearn.models.bridges.projector import Projector


class ScaledProjector(Projector):
    r"""A projector, an RMS norm, and a gain g that starts at ``config.projector_length``; and where each patch is.

    .. math:: z_i = g \odot \mathrm{RMSNorm}\big(W_2\, \phi(W_1 x_i + b_1) + b_2\big) + u_i

    u are learned where ``config.projector_positions``, and begin at 0; else there are none.
    """

    def __init__(self, config: Any, inputs: int, width: int, outputs: int):
        super().__init__(config, inputs, width, outputs)
        self.norm = nn.RMSNorm(outputs)
        nn.init.constant_(self.norm.weight, config.projector_length)
        learned = config.projector_positions and not config.pooled_tokens
        self.positions = nn.Parameter(torch.zeros(config.num_image_tokens, outputs)) if learned else None  # u

    def forward(self, x: Float[Tensor, "b n inputs"]) -> Float[Tensor, "b n outputs"]:
        z = self.norm(super().forward(x))
        return z if self.positions is None else z + self.positions


def build_projector(config: Any, inputs: int, width: int) -> Projector:
    """From patches to embeddings of this width, or from pooled patches to as many as ``config.pooled_tokens``."""
    kind = Projector if config.projector_length is None else ScaledProjector
    return kind(config, inputs, width, width * max(config.pooled_tokens, 1))
