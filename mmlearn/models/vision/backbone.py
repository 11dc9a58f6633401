"""A frozen image encoder pretrained on ImageNet: torchvision's MobileNetV2, packaged without its classifier."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

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
        check_image(images, patch_size=1)
        size = (self.input_size, self.input_size)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        return self.features((images - self.mean) / self.std).mean((2, 3))  # (b, 1280, rows, columns) → (b, 1280)
