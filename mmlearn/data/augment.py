"""Pictures moved, turned, resized and tinted at random, so that a few thousand teach more than themselves."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor


def augment(
    images: Float[Tensor, "b 3 height width"],
    generator: Generator,
    *,
    shift: float = 0.15,
    scale: float = 0.2,
    turn: float = 0.25,
    tint: float = 0.25,
) -> Float[Tensor, "b 3 height width"]:
    """Each picture by itself: moved, resized and turned by up to these amounts, then each channel multiplied and moved.

    ``shift`` and ``scale`` are shares of the picture, ``turn`` is in radians; ``tint`` is a standard deviation, where
    pictures are normalised. What comes in from outside has the colour of the border. At 0 nothing changes.
    """
    b = len(images)

    def within(amount: float, *shape: int) -> Tensor:
        return (2 * torch.rand(b, *shape, generator=generator) - 1) * amount

    angle, size = within(turn), 1 + within(scale)
    high = size * (1 + within(scale / 2))  # a little higher or wider
    matrix = torch.zeros(b, 2, 3)
    matrix[:, 0, 0], matrix[:, 0, 1] = size * angle.cos(), -size * angle.sin()
    matrix[:, 1, 0], matrix[:, 1, 1] = high * angle.sin(), high * angle.cos()
    matrix[:, :, 2] = within(2 * shift, 2)  # the picture reaches from -1 to 1
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    gain, lift = (tint * torch.randn(b, 3, 1, 1, generator=generator) for _ in range(2))
    return moved * (1 + gain) + lift
