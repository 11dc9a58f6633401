"""MAE: encode a quarter of an image's patches, and reconstruct the pixels of the others.

Paper: He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners".
Official code: https://github.com/facebookresearch/mae.

Deviations: ``tiny`` is ours. Weights of blocks start scaled by width and depth, in the official code by Xavier's rule.
Norms add 1e-12 to variances, as released files of Transformers do, there 1e-6.
Presets learn normalised pixels, the best row of the paper's table 1d; the released weights that paint learned plain
ones, which ``normalise_pixels=False`` does. Visible tokens keep the order of their patches, which changes nothing: each
has its position before it is chosen. Without ``visible`` patches the encoder sees all of them, as tasks use it, where
Transformers always hides some. Pictures are of one size, in the paper's fine-tuning also of others.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import Config, ImageEncoder, ImageEncoderConfig, Transformer, patchify, select_tokens, small_linear
from mmlearn.layers.positions import sinusoidal_grid
from mmlearn.objectives import hidden_patches, masked_pixels, normalised_patches, restore_order
from mmlearn.objectives.masked_image import visible_count


@dataclass(frozen=True)
class MAEConfig(Config):
    image: ImageEncoderConfig = ImageEncoderConfig(norm_epsilon=1e-12)
    decoder_width: int = 512
    decoder_depth: int = 8  # blocks; 0: no decoder, for a model that only encodes
    decoder_heads: int = 16
    decoder_mlp_width: int | None = None  # 4 · decoder_width
    mask_share: float = 0.75  # of patches that are hidden
    normalise_pixels: bool = True  # of each patch, before they are predicted

    PRESETS = {
        "tiny": dict(image=ImageEncoderConfig(64, 3, 4, image_size=64, patch_size=8))
        | dict(decoder_width=96, decoder_depth=2, decoder_heads=4),
        "B/16": dict(),
        "L/16": dict(image=ImageEncoderConfig(width=1024, depth=24, num_heads=16, norm_epsilon=1e-12)),
        "H/14": dict(image=ImageEncoderConfig(1280, 32, 16, patch_size=14, norm_epsilon=1e-12)),
    }


class MAEOutput(NamedTuple):
    tokens: Float[Tensor, "b n d"]  # the class token, then the visible patches
    prediction: Float[Tensor, "b p pixels"] | None  # of every patch, row by row, each pixel's three channels together
    hidden: Bool[Tensor, "b p"] | None


class MAEDecoder(nn.Module):
    """Visible tokens at their positions, mask tokens at all others, through a small transformer to pixels.

    Source: section 3, MAE decoder.
    """

    def __init__(self, config: MAEConfig, grid: tuple[int, int]):
        super().__init__()
        width, image = config.decoder_width, config.image
        self.patches = grid[0] * grid[1]
        self.project = nn.Linear(image.width, width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.positions = nn.Parameter(fixed_positions(grid, width), requires_grad=False)
        depth, heads, mlp_width = config.decoder_depth, config.decoder_heads, config.decoder_mlp_width
        blocks = replace(image, width=width, depth=depth, num_heads=heads, mlp_width=mlp_width)
        self.transformer = Transformer(blocks)
        self.norm = nn.LayerNorm(width, eps=image.norm_epsilon)
        self.pixels = small_linear(width, 3 * image.patch_size**2)

    def forward(self, tokens: Float[Tensor, "b n d"], visible: Int[Tensor, "b kept"]) -> Float[Tensor, "b p pixels"]:
        x = self.project(tokens)  # (b, 1 + kept, d)
        patches = restore_order(x[:, 1:], visible, self.mask_token, self.patches)  # (b, p, d)
        x = self.transformer(torch.cat([x[:, :1], patches], 1) + self.positions)
        return self.pixels(self.norm(x[:, 1:]))  # (b, p, 3 · patch_size²)


def fixed_positions(grid: tuple[int, int], width: int) -> Float[Tensor, "n width"]:
    """Sines and cosines of each patch's position, after the zeros of the class token."""
    return torch.cat([torch.zeros(1, width), sinusoidal_grid(*grid, width)])


class MAE(nn.Module):
    r"""An encoder that reads the visible patches alone, and a light decoder that predicts the pixels of the others.

    ``visible`` (b, kept) are the numbers of the visible patches; without them all are encoded, and nothing is
    predicted. Raises ``ValueError`` for an encoder without a class token or with convolutions, which read across
    patches, and for an image of another size. Source: section 3 and figure 1.
    """

    def __init__(self, config: MAEConfig):
        super().__init__()
        image = config.image
        if not image.class_token or image.convolutions:
            raise ValueError("MAE has a class token, and patches that are read one by one: no convolutions.")
        self.config = config
        self.image_encoder = ImageEncoder(image)
        embedding = self.image_encoder.embedding
        embedding.positions = nn.Parameter(fixed_positions(embedding.grid, image.width), requires_grad=False)
        self.decoder = MAEDecoder(config, embedding.grid) if config.decoder_depth else None

    def forward(
        self, image: Float[Tensor, "b 3 height width"], visible: Int[Tensor, "b kept"] | None = None
    ) -> MAEOutput:
        encoder = self.image_encoder
        x = encoder.embedding(image)  # (b, 1 + p, d)
        if visible is not None:
            x = torch.cat([x[:, :1], select_tokens(x[:, 1:], visible)], 1)  # (b, 1 + kept, d)
        tokens = encoder.norm(encoder.transformer(encoder.embedding_norm(x)))
        if visible is None or self.decoder is None:
            return MAEOutput(tokens, None, None)
        return MAEOutput(tokens, self.decoder(tokens, visible), hidden_patches(visible, self.decoder.patches))

    def target(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b p pixels"]:
        """The pixels of each patch, normalised if the configuration says so."""
        image = self.image_encoder.embedding.whole(image)  # as the encoder reads it
        patches = rearrange(patchify(image, self.config.image.patch_size), "b p (c pixel) -> b p (pixel c)", c=3)
        return normalised_patches(patches) if self.config.normalise_pixels else patches

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``pixels``: the squared error of the patches that ``batch["visible"]`` (b, kept) does not name.

        ``ValueError`` without a decoder or an image, for more or fewer visible patches than ``mask_share`` leaves, for
        a patch number that is too high, and for images of another size.
        """
        image, visible = batch["image"], batch["visible"]
        if self.decoder is None:
            raise ValueError("This MAE has no decoder to paint with: set decoder_depth in its configuration.")
        if not len(image):
            raise ValueError("A batch holds at least one picture.")
        if self.image_encoder.embedding.grid_of(image) != self.image_encoder.embedding.grid:
            raise ValueError(
                f"This MAE paints {self.config.image.image_size} pixels a side, not {tuple(image.shape[2:])}."
            )
        hidden_patches(visible, self.decoder.patches)  # refuses a wrong number before patches are selected
        kept = visible_count(self.decoder.patches, self.config.mask_share)
        if visible.shape[1] != kept:
            raise ValueError(
                f"With mask_share {self.config.mask_share} {kept} patches are visible, not {visible.shape[1]}."
            )
        output = self(image, visible)
        return {"pixels": masked_pixels(output.prediction, self.target(image), output.hidden)}
