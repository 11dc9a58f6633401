"""VQGAN: a VQ-VAE with a discriminator, so that its reconstructions are sharp.

Paper: Esser et al. 2021, "Taming Transformers for High-Resolution Image Synthesis". Official code:
https://github.com/CompVis/taming-transformers.

Deviations: encoder, decoder and codebook are those of our VQ-VAE; the official ones are deeper, with attention and
group norms, and their codebook learns by its gradient. The reconstruction loss is the squared error alone; there it is
the absolute error and the perceptual distance by a VGG network that was trained on photographs. The discriminator has
group norms instead of batch norms, so that images of a batch do not depend on each other, biases before them, and
PyTorch's initialisation; there normal weights of 0.02. It learns first in each step, there last. ``tiny`` and ``base``
are ours; a code of ``base`` stands for 4 pixels each way, of the official model of ImageNet for 16. Not compared with
released code: its networks are those of our VQ-VAE; its losses are compared with their equations.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmlearn.models.image_tokens.autoencoder import TINY
from mmlearn.models.image_tokens.codecs import VQVAE, VQVAEConfig
from mmlearn.objectives.adversarial import adaptive_weight, hinge_discrimination, hinge_generation


@dataclass(frozen=True)
class VQGANConfig(VQVAEConfig):
    discriminator_width: int = 64  # channels of its first layer
    discriminator_halvings: int = 3
    adversarial_weight: float = 0.8  # times :func:`adaptive_weight`
    adversarial_start: int = 10_000  # steps in which the discriminator does not count yet

    PRESETS = {
        "tiny": TINY | dict(discriminator_width=32, discriminator_halvings=2, adversarial_start=0),
        "base": dict(),
    }


class PatchDiscriminator(nn.Sequential):
    """A score for each patch of an image, (b, 3, height, width) → (b, 1, rows, columns): is it real?

    Source: Isola et al. 2017 (pix2pix), PatchGAN; Esser et al. 2021, official code, ``NLayerDiscriminator``.
    """

    def __init__(self, width: int, halvings: int):
        layers: list[nn.Module] = []
        channels = [3, *(width * min(2**i, 8) for i in range(halvings + 1))]
        for i in range(halvings + 1):
            layers.append(nn.Conv2d(channels[i], channels[i + 1], 4, stride=2 if i < halvings else 1, padding=1))
            # The first layer has no norm, as in the official code.
            layers += [nn.GroupNorm(min(8, channels[i + 1]), channels[i + 1])] if i else []
            layers.append(nn.LeakyReLU(0.2))
        super().__init__(*layers, nn.Conv2d(channels[-1], 1, 4, padding=1))


class VQGAN(VQVAE):
    r"""A VQ-VAE and a discriminator of patches.

    .. math:: \min_{f, g, e} \max_D \; \mathcal{L}_\mathrm{VQ} + \lambda\, \mathcal{L}_\mathrm{GAN}

    A step has two turns: :meth:`discriminator_loss`, then :meth:`loss`. Errors as for a VQ-VAE, and for a
    codebook without moving averages, which neither turn would train.
    Source: section 3.1, equations 5 to 7.
    """

    config: VQGANConfig

    def __init__(self, config: VQGANConfig):
        super().__init__(config)
        if not config.decay:
            raise ValueError("VQGAN's codebook follows moving averages here: set decay above 0, such as 0.99.")
        self.discriminator = PatchDiscriminator(config.discriminator_width, config.discriminator_halvings)

    def discriminator_loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Real patches from reconstructed ones, which get no gradient. Source: equation 5, as a hinge."""
        with torch.no_grad():
            fake = self(batch["image"]).image
        scores = self.discriminator(batch["image"]), self.discriminator(fake)
        return {"discriminator": self._adversarial_on * hinge_discrimination(*scores)}

    @property
    def _adversarial_on(self) -> Float[Tensor, ""]:
        """1 from step ``adversarial_start`` on, and 0 before."""
        return (self.steps >= self.config.adversarial_start).float()

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """As of a VQ-VAE, and ``adversarial``, weighted so that its gradient is as large as that of ``pixels``."""
        fake, losses = self.reconstruct(batch["image"])
        adversarial = hinge_generation(self.discriminator(fake))  # the discriminator does not learn here
        weight = adaptive_weight(losses["pixels"], adversarial, self.decoder.last_layer)
        return losses | {"adversarial": self._adversarial_on * self.config.adversarial_weight * weight * adversarial}
