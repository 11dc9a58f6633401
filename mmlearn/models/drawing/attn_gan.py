"""AttnGAN: an image is generated small, then larger, and each of its positions attends to the words that it needs.

Paper: Xu et al. 2018, "AttnGAN: Fine-Grained Text to Image Generation with Attentional Generative Adversarial
Networks". Official code: https://github.com/taoxugit/AttnGAN.

Deviations: regions come from a small network that is trained with the text encoder; in the paper from an Inception
network that was trained on photographs. The generator upsamples by transposed convolutions, as in GAN-INT-CLS; in the
paper by nearest-neighbour upsampling and gated convolutions. Discriminators have no batch norms, and He's
initialisation. The unconditional and the conditional half of a loss have equal weights, as in the paper; discriminators
also see mismatched texts, as in the official code. DAMSM is the mean of both directions; in the paper their sum.
Discriminators read the sentence of the text encoder, as in the official code. ``tiny`` is ours; the default
configuration has the paper's sizes of images, words and condition. Not compared with released code: its readers and its
way to paint are others; DAMSM is compared with its equations.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.models.drawing.gan_blocks import (
    TINY_DRAWING,
    Discriminator,
    DrawingConfig,
    InitStage,
    TextImageEncoders,
    TextToImageGAN,
    UpBlock,
    caption_ids,
    check_noise,
    gathered_pairs,
)
from mmlearn.models.image_tokens.autoencoder import check_size
from mmlearn.objectives.adversarial import logistic_discrimination, logistic_generation
from mmlearn.objectives.all_gather import gather
from mmlearn.objectives.drawing import (
    conditioning_augmentation,
    damsm,
    matching_aware_discrimination,
    other_captions,
    standard_normal_divergence,
    word_attention,
)


@dataclass(frozen=True)
class AttnGANConfig(DrawingConfig):
    image_size: int = 256
    halvings: int = 6
    width: int = 32
    region_halvings: int = 4
    stages: int = 3  # images: the last is of image_size, each before it half as large
    condition_width: int = 100
    residual_blocks: int = 2  # of each stage but the first
    damsm_weight: float = 5.0  # λ; 0: DAMSM does not help to draw
    matching_aware: bool = True

    PRESETS = {"tiny": TINY_DRAWING | dict(region_halvings=2, stages=2, condition_width=16, residual_blocks=1)}

    @property
    def noise_numbers(self) -> int:
        """Those of the noise, and those by which a condition differs from its mean."""
        return self.noise_width + self.condition_width


class AttnGANOutput(NamedTuple):
    image: Float[Tensor, "b 3 height width"]  # the last and largest, from −1 to 1
    words: Float[Tensor, "b t d"]
    sentence: Float[Tensor, "b d"]
    mean: Float[Tensor, "b c"]  # of the condition
    log_variance: Float[Tensor, "b c"]
    low_resolution: tuple[Tensor, ...]  # the images of earlier stages
    maps: tuple[Tensor, ...]  # (b, p, t) of each later stage: how much each position attended to each word


class DAMSM(TextImageEncoders):
    """Encoders that are trained to match images and texts, by words and regions and by whole embeddings."""

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``words`` and ``sentence``. Source: section 3.2."""
        words, sentence = self.text(batch["tokens"], batch["mask"])
        return self.matching_loss(batch["image"], words, sentence, batch)

    def matching_loss(
        self,
        image: Float[Tensor, "b 3 height width"],
        words: Float[Tensor, "b t d"],
        sentence: Float[Tensor, "b d"],
        batch: dict[str, Tensor],
    ) -> dict[str, Float[Tensor, ""]]:
        """The same for other images than the batch's, with its texts already encoded."""
        regions, whole = self.image(image)
        regions, whole, words, sentence = (gather(x) for x in (regions, whole, words, sentence))  # of all processes
        return damsm(regions, whole, words, sentence, gather(batch["mask"]), gathered_pairs(batch))


class GANResidualBlock(nn.Module):
    """Convolution, batch norm, ReLU, convolution, batch norm, on a residual path."""

    def __init__(self, width: int):
        super().__init__()
        layers = [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.branch = nn.Sequential(*layers, nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Float[Tensor, "b d height width"]) -> Float[Tensor, "b d height width"]:
        return x + self.branch(x)


class NextStage(nn.Module):
    r"""A later stage: each position attends to the words, and the grid becomes twice as large.

    .. math:: h_i = F_i(h_{i-1}, F^\mathrm{attn}_i(e, h_{i-1}))

    Source: section 3.1, equations 1 and 2.
    """

    def __init__(self, config: AttnGANConfig, width: int):
        super().__init__()
        self.words = nn.Linear(config.text_width, width, bias=False)
        self.blocks = nn.Sequential(*(GANResidualBlock(2 * width) for _ in range(config.residual_blocks)))
        self.up = UpBlock(2 * width, width // 2)

    def forward(
        self, h: Float[Tensor, "b d y x"], words: Float[Tensor, "b t k"], mask: Bool[Tensor, "b t"]
    ) -> tuple[Float[Tensor, "b c yy xx"], Float[Tensor, "b p t"]]:
        positions = rearrange(h, "b d y x -> b (y x) d")  # (b, p, d)
        attended, maps = word_attention(positions, self.words(words), mask)  # (b, p, d), (b, p, t)
        context = rearrange(attended, "b (y x) d -> b d y x", y=h.shape[2])
        return self.up(self.blocks(torch.cat([h, context], 1))), maps  # (b, 2 d, y, x) → (b, d/2, 2 y, 2 x)


class Generator(nn.Module):
    """All stages: noise and a condition become a feature map and an image; later stages attend to words. Equation 1."""

    def __init__(self, config: AttnGANConfig):
        super().__init__()
        self.config = config
        self.condition = nn.Linear(config.text_width, 2 * config.condition_width)
        later = [config.width * 2**i for i in range(config.stages - 1, 0, -1)]  # channels before each later stage
        self.init_stage = InitStage(config, config.noise_numbers, config.halvings - len(later))
        self.next_stages = nn.ModuleList(NextStage(config, width) for width in later)
        channels = [*later, config.width]
        self.to_rgb = nn.ModuleList(nn.Sequential(nn.Conv2d(c, 3, 3, padding=1), nn.Tanh()) for c in channels)

    def forward(
        self,
        words: Float[Tensor, "b t d"],
        sentence: Float[Tensor, "b d"],
        mask: Bool[Tensor, "b t"],
        noise: Float[Tensor, "b numbers"] | None,
    ) -> AttnGANOutput:
        z, epsilon = check_noise(sentence, noise, self.config).split(
            [self.config.noise_width, self.config.condition_width], 1
        )
        mean, log_variance = self.condition(sentence).chunk(2, 1)  # (b, c) each
        condition = conditioning_augmentation(mean, log_variance, epsilon)
        h = self.init_stage(torch.cat([condition, z], 1))  # (b, d, y, x)
        images, maps = [self.to_rgb[0](h)], []
        for stage, to_rgb in zip(self.next_stages, self.to_rgb[1:]):
            h, attention = stage(h, words, mask)  # (b, d/2, 2 y, 2 x), (b, p, t)
            images.append(to_rgb(h))
            maps.append(attention)
        return AttnGANOutput(images[-1], words, sentence, mean, log_variance, tuple(images[:-1]), tuple(maps))


class AttnGAN(TextToImageGAN):
    r"""Text and image encoders (DAMSM), a generator in stages, and a discriminator for each stage.

    .. math:: \min_G \max_D \sum_i \mathcal{L}_{G_i} + \lambda\, \mathcal{L}_\mathrm{DAMSM} + \mathcal{L}_\mathrm{KL}

    DAMSM is trained in the first stage, and is frozen in the second. A step of the second stage has two turns:
    :meth:`discriminator_loss`, then :meth:`loss`. Errors: ``ValueError`` for images of another size, for noise that
    does not fit, and for more stages than halvings. Source: section 3, equations 3 to 6.
    """

    def __init__(self, config: AttnGANConfig):
        super().__init__()
        if not 1 <= config.stages <= config.halvings + 1:
            raise ValueError(
                f"{config.stages} stages are not from 1 to {config.halvings + 1}, one more than the halvings."
            )
        self.config = config
        self.encoders = DAMSM(config)
        self.generator = Generator(config)
        first = config.halvings - config.stages + 1
        self.discriminators = nn.ModuleList(
            Discriminator(config, halvings, unconditional=True) for halvings in range(first, config.halvings + 1)
        )

    def forward(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"], noise: Float[Tensor, "b numbers"] | None = None
    ) -> AttnGANOutput:
        return self.generator(*self.encoders.text(tokens, mask), mask, noise)

    def discriminate(
        self, image: Float[Tensor, "b 3 height width"], sentence: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b"]:
        """The scores of the last discriminator, given the text."""
        return self.discriminators[-1].conditional_score(self.discriminators[-1].features(image), sentence)

    def discriminator_loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Each image against a real one of its size, without and with the text; the mean of both. Equation 5."""
        check_size(batch["image"], self.config.image_size)
        with torch.no_grad():
            output = self(batch["tokens"], batch["mask"], batch["noise"])  # the generator does not learn here
        other, differs = other_captions(caption_ids(batch))
        losses, sentence = [], output.sentence
        for discriminator, fake in zip(self.discriminators, (*output.low_resolution, output.image)):
            real = discriminator.features(F.interpolate(batch["image"], fake.shape[2:], mode="area"))
            fake = discriminator.features(fake)  # (b, d, rows, columns)
            pair = discriminator.conditional_score(real, sentence), discriminator.conditional_score(fake, sentence)
            if self.config.matching_aware:
                mismatched = discriminator.conditional_score(real, sentence[other])
                conditional = matching_aware_discrimination(pair[0], mismatched, pair[1], differs)
            else:
                conditional = logistic_discrimination(*pair)
            pair = discriminator.unconditional_score(real), discriminator.unconditional_score(fake)
            losses.append((logistic_discrimination(*pair) + conditional) / 2)
        return {"discriminator": sum(losses[1:], losses[0])}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """To pass for real at each size and to show the text, judged by discriminators and DAMSM. Equation 3."""
        output = self(batch["tokens"], batch["mask"], batch["noise"])
        adversarial = []
        for discriminator, fake in zip(self.discriminators, (*output.low_resolution, output.image)):
            features = discriminator.features(fake)
            alone = logistic_generation(discriminator.unconditional_score(features))
            with_text = logistic_generation(discriminator.conditional_score(features, output.sentence))
            adversarial.append((alone + with_text) / 2)
        generator = sum(adversarial[1:], adversarial[0])
        losses = {"generator": generator, "kl": standard_normal_divergence(output.mean, output.log_variance)}
        matching = self.encoders.matching_loss(output.image, output.words, output.sentence, batch)
        return losses | {f"drawn_{name}": self.config.damsm_weight * value for name, value in matching.items()}
