"""Patches of which some are hidden: a learned mask token replaces them, but keeps their positions.

Source: Bao et al. 2022 (BEiT), section 2.3; Singh et al. 2022 (FLAVA), section 3.1.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.layers import ImageEmbedding


class MaskedImageEmbedding(ImageEmbedding):
    """An :class:`~mmlearn.layers.ImageEmbedding` with a class token and a mask token.

    ``masked_patches`` (b, p) is True where the mask token replaces a patch, at its position. Raises ``ValueError`` for
    one of another shape or type.
    """

    def __init__(self, image_size: int | tuple[int, int], patch_size: int, width: int):
        super().__init__(image_size, patch_size, width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))

    def forward(
        self, image: Float[Tensor, "b 3 height width"], masked_patches: Bool[Tensor, "b p"] | None = None
    ) -> Float[Tensor, "b n d"]:
        x = super().forward(image)  # (b, 1 + p, d), positions included
        if masked_patches is None:
            return x
        if masked_patches.shape != (len(x), x.shape[1] - 1) or masked_patches.dtype != torch.bool:
            wanted, got = (len(x), x.shape[1] - 1), f"{masked_patches.dtype} {tuple(masked_patches.shape)}"
            raise ValueError(f"masked_patches is boolean {wanted} for these pictures, got {got}.")
        hidden = self.mask_token + self._positions(self.grid_of(image))[1:]
        return torch.cat([x[:, :1], torch.where(masked_patches[..., None], hidden.to(x), x[:, 1:])], 1)
