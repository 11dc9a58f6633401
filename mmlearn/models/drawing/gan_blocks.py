"""What text-to-image GANs share: their sizes, encoders of captions and images, and what their batches hold."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mmlearn.layers.config import Config
from mmlearn.layers.embeddings import look_up
from mmlearn.layers.pooling import real_tokens_first
from mmlearn.models.image_tokens.autoencoder import check_size
from mmlearn.objectives.all_gather import gather
from mmlearn.objectives.contrastive import same_caption


@dataclass(frozen=True)
class DrawingConfig(Config):
    """Images of ``image_size`` pixels a side, halved ``halvings`` times down to the grid that noise becomes."""

    image_size: int = 64
    halvings: int = 4
    generator_width: int = 128  # channels of its largest grid of features; twice as many on a grid half as large
    discriminator_width: int = 64  # channels after the first halving; twice as many after each further one
    vocab_size: int = 16_384
    max_length: int = 32
    word_width: int = 300  # of the embeddings that the caption encoder reads
    text_width: int = 256  # of what it says of each word, and of the sentence
    region_halvings: int = 2  # from an image to the regions of its encoder
    noise_width: int = 100

    @property
    def start(self) -> int:
        """The side of the first grid. ``ValueError`` where it would not be whole."""
        step = 2**self.halvings
        if self.image_size % step or self.image_size < step or self.region_halvings > self.halvings:
            raise ValueError(
                f"Images of {self.image_size} pixels are not halved {self.halvings} times evenly, and regions not "
                f"{self.region_halvings} times: change one."
            )
        return self.image_size // step

    @property
    def noise_numbers(self) -> int:
        """The width of the random input of the generator."""
        return self.noise_width


TINY_DRAWING: dict[str, Any] = dict(
    image_size=32, halvings=3, generator_width=16, discriminator_width=16, vocab_size=512, word_width=64, text_width=64
) | dict(noise_width=16)


class CaptionEncoder(nn.Module):
    """A bidirectional LSTM: (b, t) → words (b, t, d), 0 at padding, and the sentence (b, d), its last states.

    Padding may be anywhere. In training the share ``dropout`` of the embeddings' numbers is dropped.
    Source: Xu et al. 2018 (AttnGAN), section 3.2, and its official code.
    """

    def __init__(self, vocab_size: int, word_width: int, width: int):
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, word_width)
        self.recurrent = nn.LSTM(word_width, width // 2, batch_first=True, bidirectional=True)
        nn.init.uniform_(self.tokens.weight, -0.1, 0.1)

    def forward(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"], dropout: float = 0.0
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b d"]]:
        order = real_tokens_first(mask)
        x = look_up(self.tokens, tokens.masked_fill(~mask, 0).gather(1, order))  # (b, t, w), padding last
        x = F.dropout(x, dropout, self.training)
        # The LSTM stops at the last real token, so that the backward direction starts there and not in padding. It
        # takes long texts first, and their lengths on the CPU: the one time that a GPU is waited for.
        lengths, by_length = mask.sum(1).clamp(min=1).sort(descending=True)
        packed, (last, _) = self.recurrent(pack_padded_sequence(x[by_length], lengths.cpu(), batch_first=True))
        words = pad_packed_sequence(packed, batch_first=True, total_length=tokens.shape[1])[0]
        rows = by_length.argsort()  # back to the order of the texts, and below of their tokens
        words, last = words[rows], last[:, rows]
        words = words.gather(1, order.argsort(dim=1)[..., None].expand_as(words))
        return words.masked_fill(~mask[..., None], 0), last.transpose(0, 1).flatten(1)  # (2, b, d/2) → (b, d)


class RegionEncoder(nn.Module):
    """Convolutions: (b, 3, height, width) → regions (b, p, d) and the image (b, d), a projection of their mean.

    ``ValueError`` for images of another size than the configuration's.
    """

    def __init__(self, config: DrawingConfig):
        super().__init__()
        self.image_size = config.start * 2**config.halvings
        channels = [3, *(config.discriminator_width * 2**i for i in range(config.region_halvings))]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(channels):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels[-1], channels[-1], 3, padding=1), nn.LeakyReLU(0.2))
        self.to_region = nn.Conv2d(channels[-1], config.text_width, 1)
        self.to_image = nn.Linear(config.text_width, config.text_width)

    def forward(self, image: Float[Tensor, "b 3 height width"]) -> tuple[Float[Tensor, "b p d"], Float[Tensor, "b d"]]:
        check_size(image, self.image_size)
        regions = rearrange(self.to_region(self.layers(image)), "b d y x -> b (y x) d")  # (b, p, d)
        return regions, self.to_image(reduce(regions, "b p d -> b d", "mean"))


class TextImageEncoders(nn.Module):
    """Both encoders. They learn in the first stage, by the ``loss`` of a subclass."""

    def __init__(self, config: DrawingConfig):
        super().__init__()
        self.text = CaptionEncoder(config.vocab_size, config.word_width, config.text_width)
        self.image = RegionEncoder(config)


class TextToImageGAN(nn.Module):
    """A GAN whose ``encoders`` are trained first, and are frozen from then on."""

    encoder: TextImageEncoders

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        """Sentence embeddings of unit length."""
        return F.normalize(self.encoders.text(tokens, mask)[1], dim=-1, eps=1e-6)

    def encode_image(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b d"]:
        """Image embeddings of unit length."""
        return F.normalize(self.encoders.image(image)[1], dim=-1, eps=1e-6)

    def encoder_loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The first stage: images and captions are matched."""
        return self.encoders.loss(batch)


class VectorNorm(nn.BatchNorm1d):
    """Batch norm of vectors. One row alone has no variance: in training, too, it is normed by running statistics."""

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        if len(x) > 1 or not self.training:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def check_noise(
    sentence: Float[Tensor, "b d"], noise: Float[Tensor, "b numbers"] | None, config: DrawingConfig
) -> Float[Tensor, "b numbers"]:
    """The noise, or 0 without it. ``ValueError`` unless it has one row a text, of ``noise_numbers`` numbers."""
    if noise is None:
        return sentence.new_zeros(len(sentence), config.noise_numbers)
    if tuple(noise.shape) != (wanted := (len(sentence), config.noise_numbers)):
        raise ValueError(f"Noise is {wanted} for these texts, got {tuple(noise.shape)}.")
    return noise


def caption_ids(batch: dict[str, Tensor]) -> Int[Tensor, "b"]:
    """``caption_id`` of a batch, or a number of its own for each row where the batch does not have it."""
    tokens = batch["tokens"]
    return batch.get("caption_id", torch.arange(len(tokens), device=tokens.device))


def gathered_pairs(batch: dict[str, Tensor]) -> Bool[Tensor, "all all"]:
    """Which images and texts of all processes belong together."""
    everyone: dict[str, Tensor] = {name: gather(batch[name]) for name in ("tokens", "caption_id") if name in batch}
    return same_caption(caption_ids(everyone))
