"""Blocks of AttnGAN: the stages of its generator and its discriminators, as its official code has them.

Source: Xu et al. 2018 (AttnGAN), section 3.1; https://github.com/taoxugit/AttnGAN, ``code/model.py``.
"""

import math
from itertools import pairwise

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.models.drawing.gan_blocks import VectorNorm
from mmlearn.models.image_tokens.autoencoder import check_size
from mmlearn.objectives.drawing import word_attention


def gated_convolution(inputs: int, outputs: int) -> nn.Sequential:
    """A 3 × 3 convolution, a batch norm, and a gate: one half of the channels times the sigmoid of the other."""
    conv = nn.Conv2d(inputs, 2 * outputs, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(2 * outputs), nn.GLU(1))


def up_block(inputs: int, outputs: int) -> nn.Sequential:
    """(b, inputs, y, x) → (b, outputs, 2 y, 2 x): each position four times, and a gated convolution."""
    return nn.Sequential(nn.Upsample(scale_factor=2), gated_convolution(inputs, outputs))


class GANResidualBlock(nn.Module):
    """A gated convolution and a plain one, on a residual path."""

    def __init__(self, width: int):
        super().__init__()
        conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.branch = nn.Sequential(gated_convolution(width, width), conv, nn.BatchNorm2d(width))

    def forward(self, x: Float[Tensor, "b d height width"]) -> Float[Tensor, "b d height width"]:
        return x + self.branch(x)


class FirstStage(nn.Module):
    """A feature map from a condition and noise: a gated linear layer, and as many :func:`up_block` as it takes."""

    def __init__(self, inputs: int, width: int, start: int, ups: int):
        super().__init__()
        channels = [width * 2**i for i in range(ups, -1, -1)]
        self.shape = (channels[0], start, start)
        numbers = 2 * math.prod(self.shape)
        linear = nn.Linear(inputs, numbers, bias=False)
        self.linear = nn.Sequential(linear, VectorNorm(numbers), nn.GLU(1))
        self.ups = nn.Sequential(*(up_block(*pair) for pair in pairwise(channels)))

    def forward(self, z: Float[Tensor, "b inputs"]) -> Float[Tensor, "b d height width"]:
        return self.ups(self.linear(z).unflatten(1, self.shape))  # (b, numbers / 2) → (b, d, start, start) → …


class NextStage(nn.Module):
    r"""A later stage: each position attends to the words, and the grid becomes twice as large.

    .. math:: h_i = F_i(h_{i-1}, F^\mathrm{attn}_i(e, h_{i-1}))

    Source: section 3.1, equations 1 and 2.
    """

    def __init__(self, width: int, text_width: int, residual_blocks: int):
        super().__init__()
        self.words = nn.Linear(text_width, width, bias=False)
        self.blocks = nn.Sequential(*(GANResidualBlock(2 * width) for _ in range(residual_blocks)))
        self.up = up_block(2 * width, width)

    def forward(
        self, h: Float[Tensor, "b d y x"], words: Float[Tensor, "b t k"], mask: Bool[Tensor, "b t"]
    ) -> tuple[Float[Tensor, "b d yy xx"], Float[Tensor, "b p t"]]:
        positions = rearrange(h, "b d y x -> b (y x) d")  # (b, p, d)
        attended, maps = word_attention(positions, self.words(words), mask)  # (b, p, d), (b, p, t)
        context = rearrange(attended, "b (y x) d -> b d y x", y=h.shape[2])
        return self.up(self.blocks(torch.cat([h, context], 1))), maps  # (b, 2 d, y, x) → (b, d, 2 y, 2 x)


def down_block(inputs: int, outputs: int, kernel: int = 4, norm: bool = True) -> nn.Sequential:
    """A convolution that halves the image, or keeps its size with a ``kernel`` of 3, a batch norm and a leaky ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride=kernel - 2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs) if norm else nn.Identity(), nn.LeakyReLU(0.2))


class Discriminator(nn.Module):
    """Scores of an image with a text, and of the image alone: is it real, and does it show what the text says?

    The image is halved to the generator's first grid, of ``start`` positions a side. One that is halved more often than
    the ``least`` of all gets as many channels as that one has at last. Source: official code; alone as in Zhang et al.
    2018 (StackGAN++).
    """

    def __init__(self, width: int, text_width: int, start: int, halvings: int, least: int):
        super().__init__()
        self.image_size = start * 2**halvings
        channels = [3, *(width * 2**i for i in range(halvings))]
        down = [down_block(inputs, outputs, norm=i > 0) for i, (inputs, outputs) in enumerate(pairwise(channels))]
        narrower = channels[least:][::-1]  # from the deepest on
        self.layers = nn.Sequential(*down, *(down_block(*pair, kernel=3) for pair in pairwise(narrower)))
        deep = narrower[-1]
        self.join = down_block(deep + text_width, deep, kernel=3)
        self.conditional = nn.Conv2d(deep, 1, start)
        self.unconditional = nn.Conv2d(deep, 1, start)
        self.apply(initialise)

    def features(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b d rows columns"]:
        """The feature map that both scores read."""
        check_size(image, self.image_size)
        return self.layers(image)

    def conditional_score(
        self, features: Float[Tensor, "b d rows columns"], sentence: Float[Tensor, "b k"]
    ) -> Float[Tensor, "b"]:
        """Above 0 where the image looks real and shows what the sentence says."""
        text = repeat(sentence, "b k -> b k y x", y=features.shape[2], x=features.shape[3])
        return self.conditional(self.join(torch.cat([features, text], 1))).flatten()  # (b, 1, 1, 1) → (b,)

    def unconditional_score(self, features: Float[Tensor, "b d rows columns"]) -> Float[Tensor, "b"]:
        """Above 0 where the image looks real, whatever the text."""
        return self.unconditional(features).flatten()  # (b, 1, 1, 1) → (b,)


def initialise(layer: nn.Module) -> None:
    """Orthogonal weights, no bias of linear layers, scales of batch norms from N(1, 0.02²). Source: official code."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.orthogonal_(layer.weight)
    if isinstance(layer, nn.Linear) and layer.bias is not None:
        nn.init.zeros_(layer.bias)
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
