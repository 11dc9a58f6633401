"""Blocks of text-to-image GANs: encoders of captions and images, stages of a generator, and a discriminator.

Source: Reed et al. 2016 (GAN-INT-CLS), section 4.1: the generator upsamples by transposed convolutions of 4 × 4, the
discriminator downsamples by strided ones, and joins the text where 4 × 4 positions are left.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
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
    width: int = 64  # channels at full size; twice as many at each halving
    vocab_size: int = 16_384
    max_length: int = 32
    text_width: int = 256
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


TINY_DRAWING: dict[str, Any] = dict(image_size=32, halvings=3, width=16, vocab_size=512, text_width=64, noise_width=16)


class CaptionEncoder(nn.Module):
    """A bidirectional LSTM: (b, t) → words (b, t, d), 0 at padding, and the sentence (b, d), its last states.

    Padding may be anywhere. Source: Xu et al. 2018 (AttnGAN), section 3.2.
    """

    def __init__(self, vocab_size: int, width: int):
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, width)
        self.recurrent = nn.LSTM(width, width // 2, batch_first=True, bidirectional=True)

    def forward(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b d"]]:
        order = real_tokens_first(mask)
        x = look_up(self.tokens, tokens.masked_fill(~mask, 0).gather(1, order))  # (b, t, d), padding last
        lengths = mask.sum(1).clamp(min=1).cpu()
        # The LSTM stops at the last real token, so that the backward direction starts there and not in padding.
        packed, (last, _) = self.recurrent(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        words = pad_packed_sequence(packed, batch_first=True, total_length=tokens.shape[1])[0]
        words = words.gather(1, order.argsort(dim=1)[..., None].expand_as(words))  # back to the order of the tokens
        return words.masked_fill(~mask[..., None], 0), last.transpose(0, 1).flatten(1)  # (2, b, d/2) → (b, d)


class RegionEncoder(nn.Module):
    """Convolutions: (b, 3, height, width) → regions (b, p, d) and the image (b, d), a projection of their mean.

    ``ValueError`` for images of another size than the configuration's.
    """

    def __init__(self, config: DrawingConfig):
        super().__init__()
        self.image_size = config.start * 2**config.halvings
        channels = [3, *(config.width * 2 ** (i + 1) for i in range(config.region_halvings))]
        layers: list[nn.Module] = []
        for i in range(config.region_halvings):
            layers += [nn.Conv2d(channels[i], channels[i + 1], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
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
        self.text = CaptionEncoder(config.vocab_size, config.text_width)
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


class UpBlock(nn.Sequential):
    """(b, inputs, y, x) → (b, outputs, 2 y, 2 x): a transposed convolution of 4 × 4, a batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int):
        conv = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class InitStage(nn.Module):
    """A feature map from a vector: a linear layer, a batch norm, ReLU, and ``ups`` times :class:`UpBlock`."""

    def __init__(self, config: DrawingConfig, inputs: int, ups: int):
        super().__init__()
        channels = [config.width * 2 ** (config.halvings - i) for i in range(ups + 1)]
        self.shape = (channels[0], config.start, config.start)
        self.linear = nn.Linear(inputs, channels[0] * config.start**2, bias=False)
        self.norm = nn.Sequential(nn.BatchNorm2d(channels[0]), nn.ReLU())
        self.ups = nn.Sequential(*(UpBlock(*pair) for pair in pairwise(channels)))

    def forward(self, z: Float[Tensor, "b inputs"]) -> Float[Tensor, "b d height width"]:
        x = self.norm(self.linear(z).unflatten(1, self.shape))  # (b, d, start, start)
        return self.ups(x)


class Discriminator(nn.Module):
    """Scores of an image with a text, and of the image alone: is it real, and does it show what the text says?

    The image is downsampled to the first grid of the generator, where the text is concatenated at each position.
    Source: Reed et al. 2016, section 4.1; ``unconditional`` as in Zhang et al. 2018 (StackGAN++) and Xu et al. 2018.
    """

    def __init__(self, config: DrawingConfig, halvings: int, unconditional: bool = False):
        super().__init__()
        self.image_size = config.start * 2**halvings
        channels = [3, *(config.width * 2 ** (i + 1) for i in range(halvings))]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(channels):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.text = nn.Sequential(nn.Linear(config.text_width, channels[-1]), nn.LeakyReLU(0.2))
        self.join = nn.Sequential(nn.Conv2d(2 * channels[-1], channels[-1], 1), nn.LeakyReLU(0.2))
        self.score = nn.Conv2d(channels[-1], 1, config.start)
        self.unconditional = nn.Conv2d(channels[-1], 1, config.start) if unconditional else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, 0.2)

    def features(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b d rows columns"]:
        """The feature map that both scores read."""
        check_size(image, self.image_size)
        return self.layers(image)

    def conditional_score(
        self, features: Float[Tensor, "b d rows columns"], sentence: Float[Tensor, "b k"]
    ) -> Float[Tensor, "b"]:
        """Above 0 where the image looks real and shows what the sentence says."""
        text = repeat(self.text(sentence), "b d -> b d y x", y=features.shape[2], x=features.shape[3])
        return self.score(self.join(torch.cat([features, text], 1))).flatten()  # (b, 1, 1, 1) → (b,)

    def unconditional_score(self, features: Float[Tensor, "b d rows columns"]) -> Float[Tensor, "b"]:
        """Above 0 where the image looks real, whatever the text."""
        if self.unconditional is None:
            raise ValueError("This discriminator judges no image alone: build it with unconditional=True.")
        return self.unconditional(features).flatten()  # (b, 1, 1, 1) → (b,)


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
