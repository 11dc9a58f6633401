"""AttnGAN: an image is generated small, then larger, and each of its positions attends to the words that it needs.

Paper: Xu et al. 2018, "AttnGAN: Fine-Grained Text to Image Generation with Attentional Generative Adversarial
Networks". Official code: https://github.com/taoxugit/AttnGAN.

Generator, discriminators, losses and their weights are those of the official code, also where it is not the paper:
DAMSM's scores of words have no root (equation 10 without 1/γ₂), and a discriminator's loss has the mean of two scores
that should be high and of three that should be low.

Deviations: regions come from a small network that is trained with the text encoder; in the paper from an Inception
network that was trained on photographs, whose weights do not come with a package. The wrong text of an image is the
next one in the batch that differs, in the code the next one. Equal captions of a batch are both right in DAMSM; the
code leaves out other images of the same class. A generator's position sees the real words of its own caption; the code
repeats masks in another order than words. Smaller real images are means over areas. Weights decay (AdamW). ``tiny`` is
ours; ``birds`` and ``coco`` have the code's generator, discriminators and text encoder, and the default is ``birds``
but for its vocabulary.
"""

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.models.drawing.attn_gan_blocks import Discriminator, FirstStage, NextStage, initialise
from mmlearn.models.drawing.gan_blocks import (
    TINY_DRAWING,
    DrawingConfig,
    TextImageEncoders,
    TextToImageGAN,
    caption_ids,
    check_noise,
    gathered_pairs,
)
from mmlearn.models.image_tokens.autoencoder import check_size
from mmlearn.objectives.adversarial import logistic_generation
from mmlearn.objectives.all_gather import gather
from mmlearn.objectives.distillation import update_momentum_encoder
from mmlearn.objectives.drawing import (
    conditioning_augmentation,
    damsm,
    joint_discrimination,
    other_captions,
    standard_normal_divergence,
)


@dataclass(frozen=True)
class AttnGANConfig(DrawingConfig):
    image_size: int = 256
    halvings: int = 6
    generator_width: int = 32
    region_halvings: int = 4
    stages: int = 3  # images: the last is of image_size, each before it half as large
    condition_width: int = 100
    residual_blocks: int = 2  # of each stage but the first
    word_dropout: float = 0.5  # of the text encoder's embeddings, while DAMSM learns
    sharpness: tuple[float, float, float] = (4.0, 5.0, 10.0)  # γ₁, γ₂ and γ₃ of DAMSM; γ₁ is 5 in the paper
    damsm_weight: float = 5.0  # λ; 0: DAMSM does not help to draw
    kl_weight: float | None = None  # None: 1 / condition_width, which makes the divergence a mean over all numbers
    ema_decay: float = 0.999  # of the running average of the generator, which draws samples
    matching_aware: bool = True

    PRESETS = {
        "tiny": TINY_DRAWING
        | dict(region_halvings=2, stages=2, condition_width=16, residual_blocks=1, word_dropout=0.1, ema_decay=0.95),
        "birds": dict(vocab_size=5450, max_length=18),
        "coco": dict(vocab_size=27_297, max_length=12, generator_width=48, discriminator_width=96)
        | dict(residual_blocks=3, damsm_weight=50.0),
    }

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

    def __init__(self, config: AttnGANConfig):
        super().__init__(config)
        self.sharpness, self.word_dropout = config.sharpness, config.word_dropout

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``words`` and ``sentence``. Source: section 3.2."""
        words, sentence = self.text(batch["tokens"], batch["mask"], self.word_dropout)
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
        mask, positives = gather(batch["mask"]), gathered_pairs(batch)
        return damsm(regions, whole, words, sentence, mask, positives, self.sharpness, root=False)


class Generator(nn.Module):
    """All stages: noise and a condition become a feature map and an image; later stages attend to words. Equation 1."""

    def __init__(self, config: AttnGANConfig):
        super().__init__()
        self.config = config
        gate = nn.Linear(config.text_width, 4 * config.condition_width)
        self.condition = nn.Sequential(gate, nn.GLU(1))  # (b, k) → (b, 2 c), mean and log-variance
        width, ups = config.generator_width, config.halvings - config.stages + 1
        self.first_stage = FirstStage(config.condition_width + config.noise_width, width, config.start, ups)
        sizes = width, config.text_width, config.residual_blocks
        self.next_stages = nn.ModuleList(NextStage(*sizes) for _ in range(config.stages - 1))
        to_rgb = (nn.Conv2d(width, 3, 3, padding=1, bias=False) for _ in range(config.stages))
        self.to_rgb = nn.ModuleList(nn.Sequential(conv, nn.Tanh()) for conv in to_rgb)
        self.apply(initialise)

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
        h = self.first_stage(torch.cat([condition, z], 1))  # (b, d, y, x)
        images, maps = [self.to_rgb[0](h)], []
        for stage, to_rgb in zip(self.next_stages, self.to_rgb[1:]):
            h, attention = stage(h, words, mask)  # (b, d, 2 y, 2 x), (b, p, t)
            images.append(to_rgb(h))
            maps.append(attention)
        return AttnGANOutput(images[-1], words, sentence, mean, log_variance, tuple(images[:-1]), tuple(maps))


class AttnGAN(TextToImageGAN):
    r"""Text and image encoders (DAMSM), a generator in stages, and a discriminator for each stage.

    .. math:: \min_G \max_D \sum_i \mathcal{L}_{G_i} + \lambda\, \mathcal{L}_\mathrm{DAMSM} + \mathcal{L}_\mathrm{KL}

    DAMSM is trained in the first stage, and is frozen in the second. A step of the second stage has two turns:
    :meth:`discriminator_loss`, then :meth:`loss`. In evaluation mode the running average of the generator draws.
    Errors: ``ValueError`` for images of another size, for noise that does not fit, and for more stages than halvings.
    Source: section 3, equations 3 to 6.
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
        self.ema_generator = copy.deepcopy(self.generator).requires_grad_(False)
        halvings = range(config.halvings - config.stages + 1, config.halvings + 1)  # of each stage's image
        sizes = config.discriminator_width, config.text_width, config.start
        self.discriminators = nn.ModuleList(Discriminator(*sizes, n, least=halvings[0]) for n in halvings)

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"],
        noise: Float[Tensor, "b numbers"] | None = None,
        averaged: bool | None = None,
    ) -> AttnGANOutput:
        """Images of captions, by the running average of the generator if ``averaged``, as it is in evaluation mode."""
        averaged = not self.training if averaged is None else averaged
        generator = self.ema_generator if averaged else self.generator
        return generator(*self.encoders.text(tokens, mask), mask, noise)

    def discriminate(
        self, image: Float[Tensor, "b 3 height width"], sentence: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b"]:
        """The scores of the last discriminator, given the text."""
        return self.discriminators[-1].conditional_score(self.discriminators[-1].features(image), sentence)

    def discriminator_loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Each image against a real one of its size, without and with the text. Equation 5."""
        check_size(batch["image"], self.config.image_size)
        with torch.no_grad():  # the generator does not learn here
            output = self(batch["tokens"], batch["mask"], batch["noise"], averaged=False)
        other, differs = other_captions(caption_ids(batch))
        losses, sentence = [], output.sentence
        for discriminator, fake in zip(self.discriminators, (*output.low_resolution, output.image)):
            alone, with_text = discriminator.unconditional_score, discriminator.conditional_score
            x = discriminator.features(F.interpolate(batch["image"], fake.shape[2:], mode="area"))
            real, mismatched = (alone(x), with_text(x, sentence)), with_text(x, sentence[other])
            x = discriminator.features(fake)  # (b, d, rows, columns)
            made = alone(x), with_text(x, sentence)
            wrong = mismatched if self.config.matching_aware else None
            losses.append(joint_discrimination(real, made, wrong, differs))
        return {"discriminator": sum(losses[1:], losses[0])}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """To pass for real at each size and to show the text, judged by discriminators and DAMSM. Equation 3."""
        output = self(batch["tokens"], batch["mask"], batch["noise"], averaged=False)
        adversarial = []
        for discriminator, fake in zip(self.discriminators, (*output.low_resolution, output.image)):
            features = discriminator.features(fake)
            adversarial.append(logistic_generation(discriminator.unconditional_score(features)))
            adversarial.append(logistic_generation(discriminator.conditional_score(features, output.sentence)))
        kl_weight = 1 / self.config.condition_width if self.config.kl_weight is None else self.config.kl_weight
        divergence = standard_normal_divergence(output.mean, output.log_variance)  # nats
        losses = {"generator": sum(adversarial[1:], adversarial[0]), "kl": kl_weight * divergence}
        matching = self.encoders.matching_loss(output.image, output.words, output.sentence, batch)
        weight = 2 * self.config.damsm_weight  # λ weighs the sum of both directions, and these are means
        return losses | {f"drawn_{name}": weight * value for name, value in matching.items()}

    @torch.no_grad()
    def after_step(self) -> None:
        """The running average of the generator takes in what it has become. Source: official code."""
        update_momentum_encoder(self.ema_generator, self.generator, self.config.ema_decay)
