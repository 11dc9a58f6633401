"""GAN-INT-CLS: a discriminator that reads the caption as well, and captions in between that nobody wrote.

Paper: Reed et al. 2016, "Generative Adversarial Text to Image Synthesis". Official code:
https://github.com/reedscot/icml2016.

Deviations: captions are read by an LSTM both ways, there by convolutions over letters. As there, readers of texts and
pictures learn first to find each other and stay as they are then, here by a hinge over the pairs of a batch, there over
classes. The discriminator has no batch norms, so that pictures do not depend on each other there, and starts by He's
rule, there normal with 0.02. AdamW keeps nothing of old gradients, there half, which did better on small scenes. The
wrong text of a picture, and the other end of an interpolation, is the next one in the batch that differs. ``tiny`` is
ours; what a configuration is without it has the paper's pictures, noise and channels.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.models.drawing.parts import (
    TINY_DRAWING,
    Discriminator,
    Drawer,
    DrawingConfig,
    First,
    Reader,
    caption_numbers,
    gathered_pairs,
    noise_for,
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


class HingeReader(Reader):
    """Readers that put a picture and its sentence side by side, on a sphere."""

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """How far other pairs are from being worse than the right one. Source: Reed et al. 2016, section 3.2."""
        sentence, picture = self.text(batch["tokens"], batch["mask"])[1], self.picture(batch["image"])[1]
        pair = (gather(F.normalize(x, dim=-1, eps=1e-6)) for x in (picture, sentence))
        return {"hinge": ranking_hinge(*pair, positives=gathered_pairs(batch))}


class GANINTCLS(Drawer):
    r"""A generator of pictures from noise and a sentence, and a discriminator of pictures beside a sentence.

    .. math:: \hat x = G(z, \varphi(t)), \qquad D(x, \varphi(t)) > 0 \text{ where } x \text{ is real and shows } t

    Of a step there are two turns: :meth:`discriminator_loss`, then :meth:`loss`. Errors: ``ValueError`` for pictures of
    another size and for noise that does not fit. Source: section 4, figure 2.
    """

    def __init__(self, config: GANINTCLSConfig):
        super().__init__()
        self.config = config
        self.reader = HingeReader(config)
        self.generator = nn.ModuleDict(
            {
                "condition": nn.Sequential(nn.Linear(config.text_width, config.condition_width), nn.LeakyReLU(0.2)),
                "paint": First(config, config.noise_width + config.condition_width, config.halvings),
                "colours": nn.Sequential(nn.Conv2d(config.width, 3, 3, padding=1), nn.Tanh()),
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
        """A picture for each sentence, which may be one that nobody wrote. Source: section 4.1."""
        numbers = torch.cat([noise_for(sentence, noise, self.config), self.generator["condition"](sentence)], 1)
        return self.generator["colours"](self.generator["paint"](numbers))

    def judged(self, image: Float[Tensor, "b 3 height width"], sentence: Float[Tensor, "b d"]) -> Float[Tensor, "b"]:
        """The discriminator's scores."""
        return self.discriminator.fits(self.discriminator.see(image), sentence)

    def discriminator_loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Real pictures with their text from those with a wrong text, and from what was drawn. Source: algorithm 1."""
        with torch.no_grad():
            drawing = self(batch["tokens"], batch["mask"], batch["noise"])
        seen = self.discriminator.see(batch["image"])
        real, made = self.discriminator.fits(seen, drawing.sentence), self.judged(*drawing)
        if not self.config.matching_aware:
            return {"discriminator": logistic_discrimination(real, made)}
        other, differs = other_captions(caption_numbers(batch))
        wrong = self.discriminator.fits(seen, drawing.sentence[other])
        return {"discriminator": matching_aware_discrimination(real, wrong, made, differs)}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """To pass for real and for what the text says, and as much for texts in between. Source: equation 5."""
        image, sentence = self(batch["tokens"], batch["mask"], batch["noise"])
        made, between = self.judged(image, sentence), None
        if self.config.interpolate:
            middle = interpolate_texts(sentence, sentence[other_captions(caption_numbers(batch))[0]])
            between = self.judged(self.draw(middle, batch["noise"]), middle)
        return {"generator": matching_aware_generation(made, between)}
