r"""Early fusion: the features of all modalities are concatenated, and one network reads them.

Paper: Baltrušaitis et al. 2019, "Multimodal Machine Learning: A Survey and Taxonomy", names it; the idea is older than
its name, and the baseline of every system of this family.

Deviations: ``tiny`` is ours. The network has one hidden layer. A missing modality is zeros. Not compared with released
code: one hidden layer, of no one paper.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from mmlearn.models.classic_fusion.cues import CueClassifier, CueOutput, FusionConfig, classifier


@dataclass(frozen=True)
class EarlyFusionConfig(FusionConfig):
    PRESETS = {"tiny": dict()}


class EarlyFusion(CueClassifier):
    r"""A hidden layer sees all modalities at once, so it can learn that they contradict each other.

    .. math:: \hat y = W_2\, \mathrm{ReLU}(W_1 [x_1; \dots; x_m] + b_1) + b_2

    Inputs and errors are those of :class:`~mmlearn.models.classic_fusion.cues.CueReader`.
    """

    def __init__(self, config: EarlyFusionConfig):
        super().__init__(config)
        self.classifier = classifier(config.modalities * config.features, config.width, config.num_classes)

    def forward(self, cues: Float[Tensor, "b m features"], cue_mask: Bool[Tensor, "b m"] | None = None) -> CueOutput:
        x = self.read(cues, cue_mask)[0].flatten(1)  # (b, m features)
        return CueOutput(self.classifier(x))
