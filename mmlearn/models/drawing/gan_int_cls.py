"""GAN-INT-CLS: a discriminator that reads the caption as well, and captions in between that nobody wrote.

Paper: Reed et al. 2016, "Generative Adversarial Text to Image Synthesis". Official code:
https://github.com/reedscot/icml2016.

Deviations: captions are read by a bidirectional LSTM; in the paper by convolutions over letters. As there, encoders of
texts and images are first trained to match, and are frozen then: here by a hinge loss over the pairs of a batch, in the
paper over classes. The discriminator has no batch norms, so that images do not depend on each other in it, and He's
initialisation; in the official code normal weights of 0.02. AdamW has no momentum (β₁ = 0), in the paper 0.5, because
that did better on small scenes. The mismatched text of an image, and the other end of an interpolation, is the next one
in the batch that differs. ``tiny`` is ours; the default configuration has the paper's sizes of images, noise and
channels. Not compared with released code: the published code is for another library, and its reader of captions is
another.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.models.drawing.gan_blocks import (
    TINY_DRAWING,
    Discriminator,
    DrawingConfig,
    InitStage,
    TextImageEncoders,
    TextToImageGAN,
    caption_ids,
    check_noise,
    gathered_pairs,
)
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
    condition_width: int = 128  # of the projected sentence
    matching_aware: bool = True  # CLS: wrong texts are shown to the discriminator
    interpolate: bool = True  # INT

    PRESETS = {"tiny": TINY_DRAWING | dict(condition_width=16)}


class GANINTCLSOutput(NamedTuple):
    image: Float[Tensor, "b 3 height width"]  # from −1 to 1
    sentence: Float[Tensor, "b d"]


class HingeEncoders(TextImageEncoders):
    """Encoders that are trained by a hinge loss on the cosine of images and sentences."""

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Wrong pairs should score lower than the right one, by a margin. Source: Reed et al. 2016, section 3.2."""
        sentence, image = self.text(batch["tokens"], batch["mask"])[1], self.image(batch["image"])[1]  # (b, d) each
        image, sentence = (gather(F.normalize(x, dim=-1, eps=1e-6)) for x in (image, sentence))
        return {"hinge": ranking_hinge(image, sentence, positives=gathered_pairs(batch))}


class GANINTCLS(TextToImageGAN):
    r"""A generator of images from noise and a sentence, and a discriminator that reads the sentence too.

    .. math:: \hat x = G(z, \varphi(t)), \qquad D(x, \varphi(t)) > 0 \text{ where } x \text{ is real and shows } t

    A step has two turns: :meth:`discriminator_loss`, then :meth:`loss`. Errors: ``ValueError`` for images of another
    size and for noise that does not fit. Source: section 4, figure 2.
    """

    def __init__(self, config: GANINTCLSConfig):
        super().__init__()
        self.config = config
        self.encoders = HingeEncoders(config)
        self.generator = nn.ModuleDict(
            {
                "condition": nn.Sequential(nn.Linear(config.text_width, config.condition_width), nn.LeakyReLU(0.2)),
                "init_stage": InitStage(config, config.noise_width + config.condition_width, config.halvings),
                "to_rgb": nn.Sequential(nn.Conv2d(config.width, 3, 3, padding=1), nn.Tanh()),
            }
        )
        self.discriminator = Discriminator(config, config.halvings)

    def forward(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"], noise: Float[Tensor, "b numbers"] | None = None
    ) -> GANINTCLSOutput:
        sentence = self.encode_text(tokens, mask)
        return GANINTCLSOutput(self.draw(sentence, noise), sentence)

    def draw(
        self, sentence: Float[Tensor, "b d"], noise: Float[Tensor, "b numbers"] | None
    ) -> Float[Tensor, "b 3 h w"]:
        """An image for each sentence, which may be an interpolation of two. Source: section 4.1."""
        z = torch.cat([check_noise(sentence, noise, self.config), self.generator["condition"](sentence)], 1)
        return self.generator["to_rgb"](self.generator["init_stage"](z))  # (b, numbers) → (b, 3, h, w)

    def discriminate(
        self, image: Float[Tensor, "b 3 height width"], sentence: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b"]:
        """The discriminator's scores."""
        return self.discriminator.conditional_score(self.discriminator.features(image), sentence)

    def discriminator_loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Real images with their text from those with a wrong text, and from generated ones. Source: algorithm 1."""
        with torch.no_grad():
            fake, sentence = self(batch["tokens"], batch["mask"], batch["noise"])  # the generator does not learn here
        features = self.discriminator.features(batch["image"])
        real, fake = self.discriminator.conditional_score(features, sentence), self.discriminate(fake, sentence)
        if not self.config.matching_aware:
            return {"discriminator": logistic_discrimination(real, fake)}
        other, differs = other_captions(caption_ids(batch))
        mismatched = self.discriminator.conditional_score(features, sentence[other])
        return {"discriminator": matching_aware_discrimination(real, mismatched, fake, differs)}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """To pass for real and to show the text, also for interpolated texts. Source: equation 5."""
        image, sentence = self(batch["tokens"], batch["mask"], batch["noise"])
        score, interpolated_score = self.discriminate(image, sentence), None
        if self.config.interpolate:
            interpolated = interpolate_texts(sentence, sentence[other_captions(caption_ids(batch))[0]])
            interpolated_score = self.discriminate(self.draw(interpolated, batch["noise"]), interpolated)
        return {"generator": matching_aware_generation(score, interpolated_score)}
