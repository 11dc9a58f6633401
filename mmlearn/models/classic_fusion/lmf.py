r"""LMF: a linear layer on the outer product, computed without the product by low-rank factors.

Paper: Liu et al. 2018, "Efficient Low-rank Multimodal Fusion with Modality-Specific Factors", ACL. Official code:
https://github.com/Justin1904/Low-rank-Multimodal-Fusion.

Deviations: ``tiny`` is ours. A modality is one vector, and its network one layer; the paper reads words by an LSTM and
has three layers for others, with dropout. All parts of the sum over ranks weigh 1, as in the paper's equations; the
official code learns a weight for each. Factors start so that outputs are about as large as features. A missing modality
is a 0 in each feature and keeps its 1. Not compared with released code: the code weighs the sum over ranks, and ours
follows the paper; it is compared with the whole tensor.
"""

from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.models.classic_fusion.cues import CueClassifier, CueEncoders, CueOutput, FusionConfig, append_one


@dataclass(frozen=True)
class LMFConfig(FusionConfig):
    rank: int = 4

    PRESETS = {"tiny": dict(width=16)}


def low_rank_product(
    x: Float[Tensor, "b m d"], factors: Float[Tensor, "m rank d_and_1 outputs"]
) -> Float[Tensor, "b outputs"]:
    r"""A linear layer on the outer product whose weights are a sum of ``rank`` products of one vector a modality.

    .. math:: y = \sum_{r=1}^{R} \; \prod_{i=1}^{m} \; w_i^{(r)} \cdot \begin{bmatrix} h_i \\ 1 \end{bmatrix}
       = W \cdot \bigotimes_i \begin{bmatrix} h_i \\ 1 \end{bmatrix}, \quad
       W = \sum_{r=1}^{R} \; \bigotimes_{i=1}^{m} \; w_i^{(r)}

    m R (d + 1) weights an output, where the layer has (d + 1)^m. Source: section 3.
    """
    return einsum(append_one(x), factors, "b m d, m rank d outputs -> b m rank outputs").prod(1).sum(1)


class LMF(CueClassifier):
    """An encoder for each modality, and the low-rank product as the logits.

    Inputs and errors are those of :class:`~mmlearn.models.classic_fusion.cues.CueReader`. Source: section 3.
    """

    def __init__(self, config: LMFConfig):
        super().__init__(config)
        self.encoders = CueEncoders(config)
        self.factors = nn.Parameter(torch.empty(config.modalities, config.rank, config.width + 1, config.num_classes))
        self.bias = nn.Parameter(torch.zeros(config.num_classes))
        nn.init.normal_(self.factors, std=(config.width + 1) ** -0.5)

    def forward(self, cues: Float[Tensor, "b m features"], cue_mask: Bool[Tensor, "b m"] | None = None) -> CueOutput:
        return CueOutput(low_rank_product(self.encoders(*self.read(cues, cue_mask)), self.factors) + self.bias)
