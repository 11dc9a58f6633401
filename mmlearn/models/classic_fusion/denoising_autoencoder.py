r"""The denoising autoencoder: the input is corrupted, and the network reconstructs the original.

Paper: Vincent et al. 2008, "Extracting and Composing Robust Features with Denoising Autoencoders", ICML. The authors
released no code with it.

Deviations: ``tiny`` is ours. The input is the concatenation of all modalities; the paper has digits of one picture.
Numbers are not from 0 to 1, so the decoder is linear and the loss the squared error, one of the paper's two. There is
one layer; the paper stacks them, each trained on the output of the one before. A missing modality is zeros, and has no
loss. Weights of both ways are tied, which the paper leaves open. Not compared with released code: no code was
published.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.models.classic_fusion.cues import AutoencoderOutput, CueAutoencoder, CueConfig
from mmlearn.objectives.cues import destroy_numbers


@dataclass(frozen=True)
class DenoisingAutoencoderConfig(CueConfig):
    input_dropout: float = 0.25  # ν: the share of numbers that training sets to 0

    PRESETS = {"tiny": dict(width=64)}


class DenoisingAutoencoder(CueAutoencoder):
    r"""One hidden layer, and the same weights on the way back.

    .. math:: \tilde x \sim q_D(\tilde x \mid x), \quad y = \sigma(W \tilde x + b), \quad \hat x = W^\top y + b'

    Inputs and errors are those of :class:`~mmlearn.models.classic_fusion.cues.CueReader`. Source: section 2.
    """

    config: DenoisingAutoencoderConfig

    def __init__(self, config: DenoisingAutoencoderConfig):
        super().__init__(config)
        numbers = config.modalities * config.features
        self.encoder = nn.Linear(numbers, config.width)
        self.bias = nn.Parameter(torch.zeros(numbers))

    def encode_cues(
        self, cues: Float[Tensor, "b m features"], cue_mask: Bool[Tensor, "b m"] | None = None
    ) -> Float[Tensor, "b d"]:
        """The hidden layer, in training of a corrupted input."""
        x = self.read(cues, cue_mask)[0].flatten(1)  # (b, m features)
        if self.training and self.config.input_dropout:
            x = destroy_numbers(x, torch.rand(x.shape, device=x.device), self.config.input_dropout)
        return self.encoder(x).sigmoid()

    def forward(
        self, cues: Float[Tensor, "b m features"], cue_mask: Bool[Tensor, "b m"] | None = None
    ) -> AutoencoderOutput:
        hidden = self.encode_cues(cues, cue_mask)
        reconstruction = F.linear(hidden, self.encoder.weight.T, self.bias)  # (b, m features)
        return AutoencoderOutput(hidden, reconstruction.unflatten(1, cues.shape[1:]))
