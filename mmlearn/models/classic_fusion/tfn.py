r"""TFN: the outer product of all modalities, each with a 1 appended, so that every product of features is a feature.

Paper: Zadeh et al. 2017, "Tensor Fusion Network for Multimodal Sentiment Analysis", EMNLP. Official code:
https://github.com/A2Zadeh/TensorFusionNetwork.

Deviations: ``tiny`` is ours. A modality is one vector, and its network one layer; the paper reads words by an LSTM and
has three layers each for sound and video, with dropout. The network after the product has one hidden layer, the paper's
has two. A missing modality is a 0 in each feature and keeps its 1, so that products of the others stay. Not compared
with released code: its encoders are others; the product is compared with every product by itself.
"""

from dataclasses import dataclass

from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from mmlearn.models.classic_fusion.cues import (
    CueClassifier,
    CueEncoders,
    CueOutput,
    FusionConfig,
    append_one,
    classifier,
)


@dataclass(frozen=True)
class TFNConfig(FusionConfig):
    product_width: int = 32  # of the hidden layer that reads the product

    PRESETS = {"tiny": dict(width=16)}


def outer_product(x: Float[Tensor, "b m d"]) -> Float[Tensor, "b product"]:
    r"""All products of one number from each of m vectors with a 1 appended, (d + 1)^m of them, as one vector.

    .. math:: z = \begin{bmatrix} h_1 \\ 1 \end{bmatrix} \otimes \dots \otimes \begin{bmatrix} h_m \\ 1 \end{bmatrix}

    The last vector's numbers change fastest, and the last of all products is 1. Source: section 4.2.
    """
    first, *others = append_one(x).unbind(1)
    for other in others:
        first = einsum(first, other, "b n, b k -> b n k").flatten(1)  # (b, n k)
    return first


class TFN(CueClassifier):
    """An encoder for each modality, the outer product of their vectors, and a classifier.

    Inputs and errors are those of :class:`~mmlearn.models.classic_fusion.cues.CueReader`. Source: section 4.
    """

    def __init__(self, config: TFNConfig):
        super().__init__(config)
        self.encoders = CueEncoders(config)
        products = (config.width + 1) ** config.modalities
        self.classifier = classifier(products, config.product_width, config.num_classes)

    def forward(self, cues: Float[Tensor, "b m features"], cue_mask: Bool[Tensor, "b m"] | None = None) -> CueOutput:
        return CueOutput(self.classifier(outer_product(self.encoders(*self.read(cues, cue_mask)))))
