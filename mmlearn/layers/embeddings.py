"""How pictures and words become tokens with a position: patch, token and position embeddings."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmlearn.tensor_checks import values_are_readable


def patchify(image: Float[Tensor, "b c height width"], size: int) -> Float[Tensor, "b p pixels"]:
    r"""Cut a picture into squares of ``size`` pixels, row by row; each lists its pixels channel by channel, row by row.

    .. math:: x \in \mathbb{R}^{c \times H \times W} \to x_p \in \mathbb{R}^{p \times c\,s^2}, \quad
       p = \lfloor H/s \rfloor \lfloor W/s \rfloor

    Pixels beyond the last whole patch are left out. Source: Dosovitskiy et al. 2021 (ViT), section 3.1.
    """
    rows, columns = image.shape[2] // size, image.shape[3] // size
    image = image[:, :, : rows * size, : columns * size]
    return rearrange(image, "b c (row y) (column x) -> b (row column) (c y x)", y=size, x=size)


def check_image(image: Float[Tensor, "..."], patch_size: int, channels: int = 3) -> tuple[int, int]:
    """How many rows and columns of whole patches these pictures have.

    Raises ``ValueError`` for pictures that are not float (b, channels, height, width) or are smaller than a patch.
    """
    if image.ndim != 4 or image.shape[1] != channels or not image.is_floating_point():
        got = f"{image.dtype} {tuple(image.shape)}"
        raise ValueError(f"Pictures are float tensors of shape (b, {channels}, height, width); got {got}.")
    rows, columns = image.shape[2] // patch_size, image.shape[3] // patch_size
    if not rows or not columns:
        raise ValueError(f"A picture of {tuple(image.shape[2:])} pixels is smaller than one {patch_size}-pixel patch.")
    return rows, columns


def convolutional_stem(patch_size: int, width: int) -> nn.Sequential:
    """Convolutions of 3 × 3 with stride 2, each with twice the channels, that end in one token a patch.

    (b, 3, height, width) → (b, d, height / patch_size, width / patch_size). Neighbouring pixels are compared before
    they are summed up, which small data needs. Raises ``ValueError`` where ``patch_size`` is no power of two, or
    ``width`` does not halve as often. Unlike the paper's it has GELU, no batch norm and no last 1 × 1 convolution.
    Source: Xiao et al. 2021, "Early Convolutions Help Transformers See Better", section 4.
    """
    halvings = patch_size.bit_length() - 1
    if patch_size < 2 or patch_size != 2**halvings or width % 2 ** (halvings - 1):
        raise ValueError(
            f"A convolutional stem halves the picture: patch_size must be a power of two, got {patch_size}, and "
            f"width a multiple of half of it, got {width}."
        )
    channels = [3, *(width // 2 ** (halvings - 1 - i) for i in range(halvings))]
    layers = []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GELU()]
    return nn.Sequential(*layers[:-1])


class ImageEmbedding(nn.Module):
    r"""Cut a picture into patches, project each, put a class token before them, and add learned positions.

    .. math:: z_0 = [x_\mathrm{class};\, x_p^1 E;\, \dots;\, x_p^N E] + E_\mathrm{pos}

    ``image_size`` is (height, width), or one number for a square; pixels beyond its last whole patch are left out. One
    of another size is resized to whole patches, with positions by bicubic interpolation of the learned grid. With
    ``convolutions`` patches are read by :func:`convolutional_stem`. Features of a frozen tower are a picture of more
    ``channels``. ``ValueError`` for one that is not float (b, channels, height, width), or is smaller than a patch.
    Source: Dosovitskiy et al. 2021 (ViT), equation 1 and section 3.2.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int],
        patch_size: int,
        width: int,
        *,
        class_token: bool = True,
        bias: bool = True,
        convolutions: bool = False,
        channels: int = 3,
    ):
        super().__init__()
        if convolutions and channels != 3:
            raise ValueError(f"A convolutional stem reads pictures of 3 channels, not {channels}.")
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.patch_size = patch_size
        self.grid = (self.image_size[0] // patch_size, self.image_size[1] // patch_size)
        stem = convolutional_stem(patch_size, width) if convolutions else None
        self.patches: nn.Module = stem or nn.Linear(channels * patch_size**2, width, bias=bias)
        self.convolutions, self.channels = convolutions, channels
        self.class_token = nn.Parameter(torch.randn(width) * width**-0.5) if class_token else None
        self.positions = nn.Parameter(torch.randn(class_token + self.grid[0] * self.grid[1], width) * width**-0.5)

    def forward(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b n d"]:
        size = self.patch_size
        rows, columns = self.grid_of(image)
        image = self.whole(image)
        if self.convolutions:
            features = self.patches(image[:, :, : rows * size, : columns * size])  # (b, d, row, column)
            x = rearrange(features, "b d row column -> b (row column) d")
        else:
            x = self.patches(patchify(image, size))
        if self.class_token is not None:
            x = torch.cat([repeat(self.class_token, "d -> b 1 d", b=len(x)).to(x), x], dim=1)
        return x + self._positions((rows, columns))

    def whole(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b c rows columns"]:
        """Resized to the nearest whole number of patches, 63 pixels to 64; those of ``image_size`` stay as they are."""
        sides = tuple(count * self.patch_size for count in self.grid_of(image))
        fits = tuple(image.shape[2:]) in (sides, self.image_size)
        return image if fits else F.interpolate(image, sides, mode="bilinear", antialias=True)

    def grid_of(self, image: Float[Tensor, "b c height width"]) -> tuple[int, int]:
        """Rows and columns of patches that are read of such a picture. Errors of :func:`check_image`."""
        grid, (height, width) = check_image(image, self.patch_size, self.channels), image.shape[2:]
        nearest = max(1, round(height / self.patch_size)), max(1, round(width / self.patch_size))
        return grid if (height, width) == self.image_size else nearest

    def _positions(self, grid: tuple[int, int]) -> Float[Tensor, "n d"]:
        if grid == self.grid:
            return self.positions
        patches = math.prod(self.grid)
        first, learned = self.positions[:-patches], self.positions[-patches:]
        learned = rearrange(learned, "(row column) d -> 1 d row column", row=self.grid[0])
        resized = F.interpolate(learned, size=grid, mode="bicubic", align_corners=False)
        return torch.cat([first, rearrange(resized, "1 d row column -> (row column) d")])


def look_up(table: nn.Embedding, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
    """The vectors of these tokens. ``ValueError``, on a CPU, for a token outside the vocabulary."""
    try:
        return table(tokens)
    except IndexError as error:  # looked at afterwards, because looking at every token of every batch takes time
        count = table.num_embeddings
        wrong = int(tokens[(tokens < 0) | (tokens >= count)][0])
        raise ValueError(f"There is no token {wrong}: the vocabulary of this model has {count}, from 0.") from error


class TextEmbedding(nn.Module):
    """Look up each token and add the learned embedding of its ``position``; without these they count from 0.

    Position 0 is row ``first_position`` of the table.
    Raises ``ValueError`` for more tokens than ``max_length`` positions, and as :func:`look_up` does.
    Source: Devlin et al. 2019 (BERT), figure 2; Radford et al. 2018 (GPT), section 3.1.
    """

    def __init__(self, vocab_size: int, width: int, max_length: int, first_position: int = 0):
        super().__init__()
        self.first_position = first_position
        self.tokens = nn.Embedding(vocab_size, width)
        self.positions = nn.Parameter(torch.randn(first_position + max_length, width) * 0.01)
        nn.init.normal_(self.tokens.weight, std=0.02)

    @property
    def position_table(self) -> Float[Tensor, "n d"]:
        """The learned positions, without the rows before ``first_position``."""
        return self.positions[self.first_position :]

    def words(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """The vectors of these tokens, without their positions."""
        return look_up(self.tokens, tokens)

    def forward(self, tokens: Int[Tensor, "b t"], position: Int[Tensor, "b t"] | None = None) -> Float[Tensor, "b t d"]:
        length = tokens.shape[1]
        if position is not None and position.numel():
            length = int(position.max()) + 1 if values_are_readable(position) else 0
        self.check_length(length)
        return self.words(tokens) + self.position_table[slice(length) if position is None else position]

    def check_length(self, length: int) -> None:
        """``ValueError`` for more tokens than positions."""
        if length > (most := len(self.position_table)):
            raise ValueError(f"{length} tokens are more than the {most} positions of this model; shorten the text.")
