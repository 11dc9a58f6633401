"""The frozen network that turns a picture into a grid of codes for FLAVA: the encoder of DALL·E's discrete VAE.

Source: Ramesh et al. 2021 (DALL·E), official code, ``dall_e/encoder.py``; that of FLAVA, whose weights it takes.
"""

from collections import OrderedDict

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn


class CodebookBlock(nn.Module):
    """Four convolutions at a quarter of the channels, which add a little: one over ``layers`` squared."""

    def __init__(self, in_channels: int, out_channels: int, layers: int):
        super().__init__()
        self.gain = 1 / layers**2
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        narrow = out_channels // 4
        self.path = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(in_channels, narrow, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(narrow, narrow, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(narrow, narrow, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(narrow, out_channels, 1),
        )

    def forward(self, x: Float[Tensor, "b c height width"]) -> Float[Tensor, "b channels height width"]:
        return self.skip(x) + self.gain * self.path(x)


class ImageCodebook(nn.Module):
    """A picture of 8 s pixels a side → s × s codes, row by row. It has no gradient.

    Channels double from group to group, four groups of two blocks in all; three of them halve the picture.
    """

    def __init__(self, width: int, codes: int):
        super().__init__()
        parts: OrderedDict[str, nn.Module] = OrderedDict(input=nn.Conv2d(3, width, 7, padding=3))
        for i, (factor_in, factor_out) in enumerate(((1, 1), (1, 2), (2, 4), (4, 8)), 1):
            group: OrderedDict[str, nn.Module] = OrderedDict()
            group["block_1"] = CodebookBlock(factor_in * width, factor_out * width, 8)
            group["block_2"] = CodebookBlock(factor_out * width, factor_out * width, 8)
            if i < 4:
                group["pool"] = nn.MaxPool2d(2)
            parts[f"group_{i}"] = nn.Sequential(group)
        parts["output"] = nn.Sequential(nn.ReLU(), nn.Conv2d(8 * width, codes, 1))
        self.blocks = nn.Sequential(parts)
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, image: Float[Tensor, "b 3 height width"]) -> Int[Tensor, "b p"]:
        """Raises ``ValueError`` for a picture of fewer than 8 pixels a side."""
        if min(image.shape[2:]) < 8:
            raise ValueError(f"A code is of 8 × 8 pixels; this picture has {tuple(image.shape[2:])}.")
        return rearrange(self.blocks(image).argmax(1), "b row column -> b (row column)")
