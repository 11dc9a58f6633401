"""ViT: a transformer reads an image as a sequence of patches.

Paper: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale".
Official code: https://github.com/google-research/vision_transformer.

Deviations: ``tiny`` is ours.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmlearn.layers import Config, ImageEncoder, ImageEncoderConfig


@dataclass(frozen=True)
class ViTConfig(Config):
    image: ImageEncoderConfig = ImageEncoderConfig(norm_epsilon=1e-12)
    hidden_head: bool = False  # a hidden layer before the classes, as in pretraining
    num_classes: int = 0  # 0: no classifier

    PRESETS = {
        "tiny": dict(image=ImageEncoderConfig(image_size=64, patch_size=8, width=64, depth=3, num_heads=4)),
        "B/16": dict(),
        "B/32": dict(image=ImageEncoderConfig(patch_size=32, norm_epsilon=1e-12)),
        "L/16": dict(image=ImageEncoderConfig(width=1024, depth=24, num_heads=16, norm_epsilon=1e-12)),
        "H/14": dict(image=ImageEncoderConfig(patch_size=14, width=1280, depth=32, num_heads=16, norm_epsilon=1e-12)),
    }


class ViTOutput(NamedTuple):
    tokens: Float[Tensor, "b n d"]  # the class token, then the patches
    representation: Float[Tensor, "b d"]  # what the classifier reads
    logits: Float[Tensor, "b classes"] | None


class ViT(nn.Module):
    r"""Patches and a class token through a pre-norm transformer; the class token represents the image.

    .. math:: y = \mathrm{LN}(z_L^0), \quad \text{with the hidden head } \tanh(W y + b)

    Source: equations 1 to 4 and section 3.1.
    """

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.config = config
        width = config.image.width
        self.image_encoder = ImageEncoder(config.image)
        self.head = nn.Sequential(nn.Linear(width, width), nn.Tanh()) if config.hidden_head else nn.Identity()
        self.classifier = nn.Linear(width, config.num_classes) if config.num_classes else None
        if self.classifier is not None:
            nn.init.zeros_(self.classifier.weight)  # section 3.2; so training starts at a loss of ln(classes)
            nn.init.zeros_(self.classifier.bias)

    def forward(self, image: Float[Tensor, "b c height width"]) -> ViTOutput:
        tokens = self.image_encoder(image)  # (b, 1 + p, d)
        representation = self.head(tokens[:, 0])  # (b, d)
        logits = self.classifier(representation) if self.classifier is not None else None
        return ViTOutput(tokens, representation, logits)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``classification``: cross-entropy for an int ``label`` (b,), binary cross-entropy for float (b, classes).

        ``ValueError`` without a classifier or an image.
        """
        if self.classifier is None:
            raise ValueError("This ViT has no classifier: set num_classes in its configuration.")
        if not len(batch["image"]):
            raise ValueError("A batch holds at least one picture.")
        multi_label = batch["label"].is_floating_point()
        criterion = F.binary_cross_entropy_with_logits if multi_label else F.cross_entropy
        return {"classification": criterion(self(batch["image"]).logits, batch["label"])}
