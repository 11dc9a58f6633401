"""Convolutions that turn images into a grid of vectors and back, shared by all systems with image codes.

Source: van den Oord et al. 2017 (VQ-VAE), section 4: strided convolutions of 4 × 4, then residual blocks of ReLU,
3 × 3 convolution, ReLU, 1 × 1 convolution; the decoder mirrors it.
"""

from dataclasses import dataclass
from typing import Any

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmlearn.layers.config import Config
from mmlearn.tensor_checks import values_are_readable


@dataclass(frozen=True)
class AutoencoderConfig(Config):
    """An image of ``image_size`` pixels a side, halved ``halvings`` times, and the size of the codebook."""

    image_size: int = 128
    halvings: int = 2  # a code stands for 2 ** halvings pixels each way
    width: int = 256  # channels
    residual_depth: int = 2  # blocks
    num_codes: int = 512  # entries of the codebook
    code_width: int = 64  # numbers of an entry

    @property
    def side(self) -> int:
        """Codes in a row of an image. ``ValueError`` where they would not be whole."""
        step = 2**self.halvings
        if self.image_size % step or self.image_size < step:
            raise ValueError(f"Images of {self.image_size} pixels are not cut evenly by codes of {step}: change one.")
        return self.image_size // step


TINY: dict[str, Any] = dict(image_size=32, width=64, residual_depth=1, num_codes=128, code_width=16)


class PreActivationBlock(nn.Module):
    """ReLU, 3 × 3 convolution, ReLU, 1 × 1 convolution, on a residual path."""

    def __init__(self, width: int):
        super().__init__()
        self.branch = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1)
        )

    def forward(self, x: Float[Tensor, "b d height width"]) -> Float[Tensor, "b d height width"]:
        return x + self.branch(x)


class Encoder(nn.Module):
    """An image as a grid of vectors, row by row: (b, 3, height, width) → (b, p, ``outputs``).

    Raises ``ValueError`` for images of another size than the configuration's.
    """

    def __init__(self, config: AutoencoderConfig, outputs: int):
        super().__init__()
        self.image_size = config.side * 2**config.halvings  # first, so that sizes that do not fit are refused at once
        layers: list[nn.Module] = []
        for i in range(config.halvings):
            # Each halves the image.
            layers += [nn.Conv2d(config.width if i else 3, config.width, 4, stride=2, padding=1), nn.ReLU()]
        blocks = (PreActivationBlock(config.width) for _ in range(config.residual_depth))
        middle = nn.Conv2d(config.width, config.width, 3, padding=1)
        self.layers = nn.Sequential(*layers, middle, *blocks, nn.ReLU(), nn.Conv2d(config.width, outputs, 1))

    def forward(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b p outputs"]:
        check_size(image, self.image_size)
        return rearrange(self.layers(image), "b d row column -> b (row column) d")  # (b, p, d)


def check_size(image: Float[Tensor, "b 3 height width"], side: int) -> None:
    """``ValueError`` for images of another size."""
    if tuple(image.shape[1:]) != (3, side, side):
        raise ValueError(
            f"Pictures are (b, 3, {side}, {side}) here, got {tuple(image.shape)}: resize them, or set image_size."
        )


class Decoder(nn.Module):
    """A grid of vectors as an image: (b, p, ``inputs``) → (b, ``channels``, height, width)."""

    def __init__(self, config: AutoencoderConfig, inputs: int, channels: int = 3):
        super().__init__()
        self.side = config.side
        blocks = (PreActivationBlock(config.width) for _ in range(config.residual_depth))
        layers: list[nn.Module] = [nn.Conv2d(inputs, config.width, 3, padding=1), *blocks, nn.ReLU()]
        for i in range(config.halvings, 0, -1):
            outputs = config.width if i > 1 else channels
            # Each doubles the grid.
            layers += [nn.ConvTranspose2d(config.width, outputs, 4, stride=2, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])  # without the last ReLU

    @property
    def last_layer(self) -> nn.Parameter:
        """The weights of the last convolution, whose outputs are pixels."""
        return self.layers[-1].weight

    def forward(self, vectors: Float[Tensor, "b p inputs"]) -> Float[Tensor, "b channels height width"]:
        return self.layers(rearrange(vectors, "b (row column) d -> b d row column", row=self.side))


def check_codes(codes: Int[Tensor, "b p"], config: AutoencoderConfig) -> None:
    """``ValueError`` for codes that are not of one image a row, or, on a CPU, that the codebook does not have."""
    if codes.ndim != 2 or codes.shape[1] != config.side**2:
        raise ValueError(f"An image has {config.side**2} codes, (b, {config.side**2}); got {tuple(codes.shape)}.")
    if values_are_readable(codes) and (wrong := (codes < 0) | (codes >= config.num_codes)).any():
        raise ValueError(f"There is no code {int(codes[wrong][0])}: this codebook has {config.num_codes}, from 0.")
