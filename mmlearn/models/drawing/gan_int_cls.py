"""GAN-INT-CLS: a discriminator that reads the caption as well, and captions in between that nobody wrote.

Paper: Reed et al. 2016, "Generative Adversarial Text to Image Synthesis". Official code:
https://github.com/reedscot/icml2016, of which ``main_cls_int.lua`` is followed.

Deviations: captions are read by a bidirectional LSTM; in the paper by convolutions over letters. As there, encoders of
texts and images are first trained to match, and are frozen then: here by a hinge loss on cosines over the pairs of a
batch, in the paper on inner products over classes (in 240 small batches they taught far less). The official code takes
the mean of four captions of an image; so does this where tokens are (b, 4, t), but the data sets of this package have
one caption an image. The mismatched text of an image, and the other end of an interpolation, is the next one in the
batch that differs; the code pairs texts with wrong images, and interpolates halves of a batch. Interpolated texts weigh
as much as written ones, as in equation 5; in the code half as much. Weights decay (AdamW). ``tiny`` is ours; ``birds``
are the sizes for birds and for flowers, and the default. Not compared with released code: the published code is for
another library, and its reader of captions is another; the tests restate its layers step by step.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.models.drawing.gan_blocks import (
    TINY_DRAWING,
    DrawingConfig,
    TextImageEncoders,
    TextToImageGAN,
    VectorNorm,
    caption_ids,
    check_noise,
    gathered_pairs,
)
from mmlearn.models.image_tokens.autoencoder import check_size
from mmlearn.objectives.adversarial import logistic_discrimination
from mmlearn.objectives.all_gather import gather
from mmlearn.objectives.contrastive import ranking_hinge
from mmlearn.objectives.drawing import (
    interpolate_texts,
    matching_aware_discrimination,
    matching_aware_generation,
    other_captions,
)


@dataclass(frozen=True)
class GANINTCLSConfig(DrawingConfig):
    text_width: int = 1024
    condition_width: int = 128  # of the projected sentence
    matching_aware: bool = True  # CLS: wrong texts are shown to the discriminator
    interpolate: bool = True  # INT

    PRESETS = {"tiny": TINY_DRAWING | dict(condition_width=16), "birds": dict()}


class GANINTCLSOutput(NamedTuple):
    image: Float[Tensor, "b 3 height width"]  # from −1 to 1
    sentence: Float[Tensor, "b d"]


class HingeEncoders(TextImageEncoders):
    """Encoders that are trained by a hinge loss on the cosine of images and sentences."""

    def sentence(
        self, tokens: Int[Tensor, "b *captions t"], mask: Bool[Tensor, "b *captions t"]
    ) -> Float[Tensor, "b d"]:
        """The sentence of each image's caption, or the mean of those of several. Source: official code."""
        if tokens.ndim == 2:
            return self.text(tokens, mask)[1]
        sentences = self.text(tokens.flatten(0, 1), mask.flatten(0, 1))[1].unflatten(0, tokens.shape[:2])
        return sentences.mean(1)  # (b, captions, d) → (b, d)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Wrong pairs should score lower than the right one, by a margin. Source: Reed et al. 2016, section 3.2."""
        sentence, image = self.sentence(batch["tokens"], batch["mask"]), self.image(batch["image"])[1]  # (b, d) each
        image, sentence = (gather(F.normalize(x, dim=-1, eps=1e-6)) for x in (image, sentence))
        return {"hinge": ranking_hinge(image, sentence, positives=gathered_pairs(batch))}


class GANResidualBlock(nn.Module):
    """Three convolutions of 1, 3 and 3 pixels with batch norms, a quarter as wide inside, on a residual path.

    It is in the official code, and not in the paper. An activation follows the sum.
    """

    def __init__(self, width: int, activation: nn.Module):
        super().__init__()
        self.activation, inner = activation, math.ceil(width / 4)
        sizes = ((width, inner, 1), (inner, inner, 3), (inner, width, 3))
        layers: list[nn.Module] = []
        for inputs, outputs, kernel in sizes:
            conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
            layers += [conv, nn.BatchNorm2d(outputs), activation]
        self.branch = nn.Sequential(*layers[:-1])

    def forward(self, x: Float[Tensor, "b d height width"]) -> Float[Tensor, "b d height width"]:
        return self.activation(x + self.branch(x))


class Generator(nn.Module):
    """Noise and a projected sentence become a small grid, and transposed convolutions make it an image.

    Residual blocks refine the first two grids. Source: section 4.1, and the official code.
    """

    def __init__(self, config: GANINTCLSConfig):
        super().__init__()
        self.condition = nn.Sequential(nn.Linear(config.text_width, config.condition_width), nn.LeakyReLU(0.2))
        channels = [config.generator_width * 2**i for i in reversed(range(config.halvings))]  # of each grid
        self.shape = (channels[0], config.start, config.start)
        # The official code writes it as a transposed convolution of one position, and initialises it so.
        self.linear = nn.Linear(config.noise_width + config.condition_width, math.prod(self.shape), bias=False)
        nn.init.normal_(self.linear.weight, 0.0, 0.02)
        layers = [nn.BatchNorm2d(channels[0]), GANResidualBlock(channels[0], nn.ReLU())]
        for i, (inputs, outputs) in enumerate(pairwise(channels)):
            up = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
            layers += [up, nn.BatchNorm2d(outputs), GANResidualBlock(outputs, nn.ReLU()) if i == 0 else nn.ReLU()]
        to_rgb = nn.ConvTranspose2d(channels[-1], 3, 4, stride=2, padding=1, bias=False)
        self.layers = nn.Sequential(*layers, to_rgb, nn.Tanh()).apply(initialise)

    def forward(
        self, sentence: Float[Tensor, "b d"], noise: Float[Tensor, "b numbers"]
    ) -> Float[Tensor, "b 3 height width"]:
        z = torch.cat([noise, self.condition(sentence)], 1)
        return self.layers(self.linear(z).unflatten(1, self.shape))  # (b, d, start, start) → (b, 3, height, width)


class Discriminator(nn.Module):
    """Strided convolutions down to the first grid of the generator, where the text is joined at each position.

    Source: section 4.1, and the official code, which has no activation before the last of these convolutions.
    """

    def __init__(self, config: GANINTCLSConfig):
        super().__init__()
        self.image_size = config.image_size
        channels = [3, *(config.discriminator_width * 2**i for i in range(config.halvings))]
        layers: list[nn.Module] = []
        for i, (inputs, outputs) in enumerate(pairwise(channels)):
            norm = nn.BatchNorm2d(outputs) if i else nn.Identity()
            activation = nn.LeakyReLU(0.2) if i == 0 or i < config.halvings - 2 else nn.Identity()
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False), norm, activation]
        deep, text = channels[-1], config.condition_width
        self.layers = nn.Sequential(*layers, GANResidualBlock(deep, nn.LeakyReLU(0.2)))
        self.text = nn.Sequential(nn.Linear(config.text_width, text), VectorNorm(text), nn.LeakyReLU(0.2))
        join = nn.Conv2d(deep + text, deep, 1, bias=False)
        self.join = nn.Sequential(join, nn.BatchNorm2d(deep), nn.LeakyReLU(0.2))
        self.score = nn.Conv2d(deep, 1, config.start, bias=False)
        self.apply(initialise)

    def features(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b d rows columns"]:
        """The feature map beside which texts are put."""
        check_size(image, self.image_size)
        return self.layers(image)

    def forward(
        self, features: Float[Tensor, "b d rows columns"], sentence: Float[Tensor, "b k"]
    ) -> Float[Tensor, "b"]:
        """Above 0 where the image looks real and shows what the sentence says."""
        text = repeat(self.text(sentence), "b d -> b d y x", y=features.shape[2], x=features.shape[3])
        return self.score(self.join(torch.cat([features, text], 1))).flatten()  # (b, 1, 1, 1) → (b,)


def initialise(layer: nn.Module) -> None:
    """Convolutions from N(0, 0.02²), scales of batch norms from N(1, 0.02²). Source: official code."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)


class GANINTCLS(TextToImageGAN):
    r"""A generator of images from noise and a sentence, and a discriminator that reads the sentence too.

    .. math:: \hat x = G(z, \varphi(t)), \qquad D(x, \varphi(t)) > 0 \text{ where } x \text{ is real and shows } t

    Tokens are (b, t), or (b, captions, t): then an image is drawn from the mean of its captions. A step has two turns:
    :meth:`discriminator_loss`, then :meth:`loss`. Errors: ``ValueError`` for images of another size, for noise that
    does not fit, and for no halving. Source: section 4, figure 2.
    """

    def __init__(self, config: GANINTCLSConfig):
        super().__init__()
        if config.halvings < 1:
            raise ValueError("GAN-INT-CLS draws by doubling a grid: halvings is at least 1, got 0.")
        self.config = config
        self.encoders = HingeEncoders(config)
        self.generator = Generator(config)
        self.discriminator = Discriminator(config)

    def forward(
        self,
        tokens: Int[Tensor, "b *captions t"],
        mask: Bool[Tensor, "b *captions t"],
        noise: Float[Tensor, "b numbers"] | None = None,
    ) -> GANINTCLSOutput:
        sentence = self.encoders.sentence(tokens, mask)  # not of unit length, as in the code
        return GANINTCLSOutput(self.draw(sentence, noise), sentence)

    def draw(
        self, sentence: Float[Tensor, "b d"], noise: Float[Tensor, "b numbers"] | None
    ) -> Float[Tensor, "b 3 h w"]:
        """An image for each sentence, which may be an interpolation of two. Source: section 4.1."""
        return self.generator(sentence, check_noise(sentence, noise, self.config))

    def discriminate(
        self, image: Float[Tensor, "b 3 height width"], sentence: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b"]:
        """The discriminator's scores."""
        return self.discriminator(self.discriminator.features(image), sentence)

    def discriminator_loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Real images with their text from those with a wrong text, and from generated ones. Source: algorithm 1."""
        with torch.no_grad():
            fake, sentence = self(batch["tokens"], batch["mask"], batch["noise"])  # the generator does not learn here
        features = self.discriminator.features(batch["image"])
        real, made = self.discriminator(features, sentence), self.discriminate(fake, sentence)
        if not self.config.matching_aware:
            return {"discriminator": logistic_discrimination(real, made)}
        other, differs = other_captions(caption_ids(batch))
        mismatched = self.discriminator(features, sentence[other])
        return {"discriminator": matching_aware_discrimination(real, mismatched, made, differs)}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """To pass for real and to show the text, also for interpolated texts. Source: equation 5."""
        image, sentence = self(batch["tokens"], batch["mask"], batch["noise"])
        score, interpolated_score = self.discriminate(image, sentence), None
        if self.config.interpolate:
            interpolated = interpolate_texts(sentence, sentence[other_captions(caption_ids(batch))[0]])
            interpolated_score = self.discriminate(self.draw(interpolated, batch["noise"]), interpolated)
        return {"generator": matching_aware_generation(score, interpolated_score)}
