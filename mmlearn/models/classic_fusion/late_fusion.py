r"""Late fusion: a classifier for each modality, whose votes are averaged.

Paper: Kittler et al. 1998, "On Combining Classifiers", for the product of the votes' probabilities; Baltrušaitis et al.
2019, "Multimodal Machine Learning: A Survey and Taxonomy", for its name.

Deviations: ``tiny`` is ours. Votes are averaged as logits, and all networks learn together; the classical way trains
each by itself. Not compared with released code: an average of votes, of no one paper.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.models.classic_fusion.cues import CueClassifier, FusionConfig, classifier


@dataclass(frozen=True)
class LateFusionConfig(FusionConfig):
    PRESETS = {"tiny": dict()}


class LateFusionOutput(NamedTuple):
    logits: Float[Tensor, "b classes"]
    votes: Float[Tensor, "b m classes"]  # 0 where a modality is missing


class LateFusion(CueClassifier):
    r"""A network for each modality; the logits of those that are present are averaged.

    .. math:: \hat y = \frac{1}{\sum_i r_i} \sum_i r_i f_i(x_i)

    A sum of functions of one modality each cannot depend on whether two modalities differ. Inputs and errors are those
    of :class:`~mmlearn.models.classic_fusion.cues.CueReader`; without any modality all logits are 0.
    """

    def __init__(self, config: LateFusionConfig):
        super().__init__(config)
        self.classifiers = nn.ModuleList(
            classifier(config.features, config.width, config.num_classes) for _ in range(config.modalities)
        )

    def forward(
        self, cues: Float[Tensor, "b m features"], cue_mask: Bool[Tensor, "b m"] | None = None
    ) -> LateFusionOutput:
        cues, mask = self.read(cues, cue_mask)
        votes = torch.stack([vote(x) for vote, x in zip(self.classifiers, cues.unbind(1))], dim=1) * mask[..., None]
        return LateFusionOutput(votes.sum(1) / mask.sum(1, keepdim=True).clamp(min=1), votes)
