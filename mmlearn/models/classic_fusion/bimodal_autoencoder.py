r"""The bimodal deep autoencoder: both modalities are reconstructed, also from one of them alone.

Paper: Ngiam et al. 2011, "Multimodal Deep Learning", ICML. The authors released no code.

Deviations: ``tiny`` is ours. All layers learn together by backpropagation from random weights; the paper first trains
sparse restricted Boltzmann machines, layer by layer, and unrolls them. There is no penalty for sparsity. Units are
ReLU, the paper's are sigmoids. A modality is one vector, the paper's are windows of frames. Where the paper adds to its
data a copy of each example with sound alone and one with video alone, ``modality_dropout`` draws: 0.42 gives a third
each. There may be more than two modalities. Not compared with released code: no code was published.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.models.classic_fusion.cues import AutoencoderOutput, CueAutoencoder, CueConfig, CueEncoders


@dataclass(frozen=True)
class BimodalAutoencoderConfig(CueConfig):
    shared_width: int = 16
    modality_dropout: float = 0.42

    PRESETS = {"tiny": dict()}


class BimodalAutoencoder(CueAutoencoder):
    r"""A layer for each modality, one that all share, and the same way back.

    .. math:: s = W \big[\mathrm{ReLU}(W_1 x_1); \dots; \mathrm{ReLU}(W_m x_m)\big], \quad
       \hat x_i = V_i'\, \mathrm{ReLU}(V_i s)

    Biases are left out of the equation. All modalities are reconstructed, whichever were given. Inputs and errors are
    those of :class:`~mmlearn.models.classic_fusion.cues.CueReader`. Source: section 4.1 and figure 3b.
    """

    def __init__(self, config: BimodalAutoencoderConfig):
        super().__init__(config)
        m, width, shared = config.modalities, config.width, config.shared_width
        self.encoders = CueEncoders(config)
        self.to_shared = nn.Linear(m * width, shared)
        self.decoders = nn.ModuleList(
            nn.Sequential(nn.Linear(shared, width), nn.ReLU(), nn.Linear(width, config.features)) for _ in range(m)
        )

    def encode_cues(
        self, cues: Float[Tensor, "b m features"], cue_mask: Bool[Tensor, "b m"] | None = None
    ) -> Float[Tensor, "b d"]:
        """The shared representation, from the modalities that are present."""
        encoded = self.encoders(*self.read(cues, cue_mask))  # (b, m, width)
        return self.to_shared(encoded.flatten(1))

    def forward(
        self, cues: Float[Tensor, "b m features"], cue_mask: Bool[Tensor, "b m"] | None = None
    ) -> AutoencoderOutput:
        shared = self.encode_cues(cues, cue_mask)  # (b, d)
        return AutoencoderOutput(shared, torch.stack([decode(shared) for decode in self.decoders], dim=1))
