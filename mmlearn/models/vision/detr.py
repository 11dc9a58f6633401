"""DETR: a transformer reads a feature map and predicts, in parallel, a set of boxes with their classes.

Paper: Carion et al. 2020, "End-to-End Object Detection with Transformers". Official code:
https://github.com/facebookresearch/detr.

Deviations: weights start at random, where the paper's backbone comes from ImageNet; published weights load here. All
layers of the backbone learn; in the paper the stem and the first stage stay. One optimiser trains everything; the paper
has a lower rate for the backbone. What the first self-attention of the decoder does with queries that are 0 does not
learn, but for its biases. With ``auxiliary_loss`` Transformers norms what goes from a block of the decoder to the next,
which neither the paper nor this does. Padding in pictures is left out by ``pixel_mask``. Masks of objects (panoptic
segmentation) and a dilated last stage (DC5) are not built. ``tiny`` is ours.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.layers import TransformerConfig
from mmlearn.models.vision.detr_blocks import BoxHead, DETRDecoder, DETREncoder
from mmlearn.models.vision.resnet import RESNETS, ResNetConfig
from mmlearn.objectives.boxes import centers_to_corners, check_boxes
from mmlearn.objectives.set_matching import Weights, set_losses_of_blocks


@dataclass(frozen=True)
class DETRConfig(TransformerConfig):
    backbone: ResNetConfig = ResNetConfig()
    image_size: int | tuple[int, int] = (800, 1333)  # pixels; others are read as well
    channels: int = 3  # more where a frozen network's features are read in place of pixels and backbone
    num_classes: int = 91
    num_queries: int = 100  # objects that can be found, at most
    auxiliary: bool = True  # each block of the decoder learns to predict boxes, not the last one alone
    class_weight: float = 1.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    no_object_weight: float = 0.1
    width: int = 256
    depth: int = 6
    decoder_depth: int = 6
    num_heads: int = 8
    mlp_width: int = 2048
    activation: str = "relu"
    norm_first: bool = False
    dropout: float = 0.1

    PRESETS = {
        "tiny": dict(backbone=RESNETS["tiny"], image_size=64, num_classes=12, num_queries=36)
        | dict(width=64, depth=1, decoder_depth=2, num_heads=4, mlp_width=128, dropout=0.0),
        "resnet-50": dict(),
        "resnet-101": dict(backbone=RESNETS["resnet-101"]),
    }

    @property
    def weights(self) -> Weights:
        """The weights of the terms, in matching and in the loss."""
        return Weights(self.class_weight, self.l1_weight, self.giou_weight, self.no_object_weight)


class DETROutput(NamedTuple):
    class_logits: Float[Tensor, "b q c"]  # the last class is: no object
    boxes: Float[Tensor, "b q 4"]  # centre, width and height, as shares of the image
    queries: Float[Tensor, "b q d"]
    pixels: Float[Tensor, "b p d"]  # the feature map after the encoder
    aux_outputs: list[tuple[Tensor, Tensor]]  # logits and boxes after each earlier block, if they are learned


class DETR(nn.Module):
    r"""A backbone and a 1 × 1 convolution, an encoder of its feature map, and a decoder of object queries.

    .. math:: \hat y_i = (\mathrm{softmax}(W h_i),\; \sigma(\mathrm{MLP}(h_i))), \quad i = 1, \dots, N

    Queries start at 0 and differ by learned positions. ``pixel_mask`` is True where a pixel is real: without it,
    everywhere. Raises ``ValueError`` for images that are not float (b, channels, height, width).
    Source: sections 3.2 and A.3.
    """

    def __init__(self, config: DETRConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.encoder = DETREncoder(config, config.backbone, config.channels)
        self.decoder = DETRDecoder(replace(config, depth=config.decoder_depth))
        self.query_positions = nn.Parameter(torch.randn(config.num_queries, width))
        self.class_head = nn.Linear(width, config.num_classes + 1)
        self.box_head = BoxHead(width)

    def forward(
        self, image: Float[Tensor, "b c height width"], pixel_mask: Bool[Tensor, "b height width"] | None = None
    ) -> DETROutput:
        x, positions, mask = self.encoder.embed_image(image, pixel_mask)  # (b, p, d) twice, (b, p)
        pixels = self.encoder(x, positions, mask)
        states = self.decoder(self.query_positions, pixels, positions, mask)  # (b, q, d) after each block
        predicting = states if self.config.auxiliary else states[-1:]
        *aux_outputs, last = [(self.class_head(queries), self.box_head(queries)) for queries in predicting]
        return DETROutput(*last, states[-1], pixels, aux_outputs)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``classes``, ``l1`` and ``giou`` of the set, as sums over the blocks of the decoder that predict boxes.

        Raises ``ValueError`` without a picture, for boxes that are inverted, empty or outside the picture, and for more
        objects than queries. Source: equation 2 and section 3.2, auxiliary decoding losses.
        """
        if not len(batch["image"]):
            raise ValueError("A batch holds at least one picture.")
        check_boxes(batch["boxes"], batch["object_mask"])
        output = self(batch["image"], batch.get("pixel_mask"))
        objects = (batch["object_classes"], batch["boxes"], batch["object_mask"])
        predictions = (*output.aux_outputs, (output.class_logits, output.boxes))
        return set_losses_of_blocks(predictions, *objects, self.config.weights)

    @torch.no_grad()
    def detect(self, image: Float[Tensor, "b c height width"]) -> tuple[Tensor, Tensor, Tensor]:
        """Of each query its likeliest class (b, q), the probability of it, and its box: left, top, right, bottom."""
        output = self(image)
        probability, label = output.class_logits.softmax(-1)[..., :-1].max(-1)
        return label, probability, centers_to_corners(output.boxes)
