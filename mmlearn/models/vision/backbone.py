"""A frozen image encoder pretrained on ImageNet: torchvision's MobileNetV2, packaged without its classifier."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from mmlearn.layers import ImageEncoderConfig
from mmlearn.layers.embeddings import check_image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as the weights expect


class Backbone(nn.Module):
    """Images (b, 3, height, width) in [0, 1], of any size → features (b, 1280), the mean over all positions.

    It resizes to ``input_size`` and normalises. Its parameters are frozen, and it stays in evaluation
    mode even while a system that holds it is trained. Gradients reach the images. Raises ``ValueError`` for images
    of another type or shape.
    """

    width = 1280

    def __init__(self, features: nn.Module, input_size: int = 128):
        super().__init__()
        if input_size < 32:
            raise ValueError(f"MobileNetV2 halves pictures 5 times: at least 32 pixels, got input_size {input_size}.")
        self.features, self.input_size = features.requires_grad_(False), input_size
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode: the running means of batch normalisation are frozen as well."""
        return super().train(False)

    def forward(self, images: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b 1280"]:
        """Features of these images."""
        return self.positions(images).mean((2, 3))  # (b, 1280, rows, columns) → (b, 1280)

    def positions(self, images: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b d rows columns"]:
        """Features of every 32 × 32 pixels of the resized images."""
        check_image(images, patch_size=1)
        size = (self.input_size, self.input_size)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        return self.features((images - self.mean) / self.std)


@dataclass(frozen=True)
class BackboneConfig(ImageEncoderConfig):
    """The backbone as a tower of positions: ``patch_size`` pixels a side, a multiple of 32, become one."""

    image_size: int | tuple[int, int] = 256
    patch_size: int = 64
    width: int = 1280
    class_token: bool = False
    published: str | None = None  # a tower by its hub id or folder, in MobileNetV2's place


class PositionBackbone(Backbone):
    """Images of any size → one feature vector for each of (image_size / patch_size)² fields: (b, p, 1280).

    A field is the mean of the network's positions in it, and its 1,280 numbers have mean 0 and variance 1. Maps of
    1,280 channels, (b, 1280, rows, columns), are fields that were computed before, and come back as (b, p, 1280).
    ``features`` may be another tower's, with the ``mean`` and ``std`` of its pixels.
    """

    def __init__(
        self, features: nn.Module, config: BackboneConfig, mean: Sequence[float] = MEAN, std: Sequence[float] = STD
    ):
        step = 1 if config.published else 32  # another tower's patches are averaged over fields of any size
        if not isinstance(config.image_size, int) or config.patch_size % step or config.image_size % config.patch_size:
            raise ValueError(
                f"MobileNetV2 sees 32 × 32 pixels of a square picture at a time: {config.image_size} are not cut "
                f"into fields of {config.patch_size}."
            )
        super().__init__(features, config.image_size)
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
        self.width, self.side = config.width, config.image_size // config.patch_size

    def extra_repr(self) -> str:
        return f"{self.side} × {self.side} fields of {self.input_size} pixels"

    def forward(self, images: Float[Tensor, "b c height width"]) -> Float[Tensor, "b p d"]:
        if images.shape[1] != self.width:
            x = F.adaptive_avg_pool2d(self.positions(images), self.side)  # (b, 1280, side, side)
            images = F.layer_norm(x.movedim(1, -1), (self.width,)).movedim(-1, 1)
        return rearrange(images, "b d row column -> b (row column) d")
