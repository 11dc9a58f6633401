r"""GMU: a gate decides for each feature how much of the fused vector comes from which modality.

Paper: Arevalo et al. 2017, "Gated Multimodal Units for Information Fusion", ICLR workshop. Official code:
https://github.com/johnarevalo/gmu-mmimdb.

Deviations: ``tiny`` is ours. The classifier has a hidden layer with ReLU, the paper's has maxout, dropout and batch
norm. Layers have no bias, as the paper's equations. A missing modality is zeros, and adds nothing. Not compared with
released code: the published code is for another library, and its classifier is another.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.models.classic_fusion.cues import CueClassifier, FusionConfig, classifier


@dataclass(frozen=True)
class GMUConfig(FusionConfig):
    PRESETS = {"tiny": dict()}


class GMUOutput(NamedTuple):
    logits: Float[Tensor, "b classes"]
    gates: Float[Tensor, "b m d"]  # of each modality; of two they add up to 1


class GMU(CueClassifier):
    r"""Each modality is projected on its own; gates, from 0 to 1, are computed from all modalities together.

    .. math:: h_i = \tanh(W_i x_i), \quad z = \sigma(W_z [x_1; x_2]), \quad h = z \odot h_1 + (1 - z) \odot h_2

    More than two modalities have a gate each, z_i, and h = Σ z_i ⊙ h_i. Inputs and errors are those of
    :class:`~mmlearn.models.classic_fusion.cues.CueReader`. Source: section 3 and figure 2.
    """

    def __init__(self, config: GMUConfig):
        super().__init__(config)
        m, width = config.modalities, config.width
        self.projections = nn.ModuleList(nn.Linear(config.features, width, bias=False) for _ in range(m))
        self.gate = nn.Linear(m * config.features, width if m == 2 else m * width, bias=False)
        self.classifier = classifier(width, width, config.num_classes)

    def forward(self, cues: Float[Tensor, "b m features"], cue_mask: Bool[Tensor, "b m"] | None = None) -> GMUOutput:
        cues, _ = self.read(cues, cue_mask)
        h = torch.stack([project(x) for project, x in zip(self.projections, cues.unbind(1))], dim=1).tanh()  # (b, m, d)
        z = self.gate(cues.flatten(1)).sigmoid()
        # Of two modalities one gate serves both: z and 1 - z.
        gates = torch.stack([z, 1 - z], dim=1) if self.config.modalities == 2 else z.view_as(h)
        return GMUOutput(self.classifier((gates * h).sum(1)), gates)
