"""VQ-VAE: an image becomes a grid of codes, each the nearest entry of a codebook, and is reconstructed from them.

Paper: van den Oord et al. 2017, "Neural Discrete Representation Learning". Official code: Sonnet's
``vqvae_example.ipynb`` (https://github.com/google-deepmind/sonnet).

Deviations: entries are moving averages, as in the paper's appendix A.1; its experiments let them learn by their
gradient, as ``decay`` 0 does. Averages of a codebook start at one choice of each entry, where the official code starts
at none and corrects for it, and they are not smoothed. Entries begin as vectors of the first batch, and those that
nothing chooses restart, as in Jukebox (Dhariwal et al. 2020), unless ``restart_threshold`` is 0. The residual blocks
are as wide inside as outside. ``tiny`` and ``base`` are ours. Not compared with released code: the published code is
for another library, and blocks and averages start differently here.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mmlearn.layers.steps import StepCounter
from mmlearn.models.image_tokens.autoencoder import TINY, AutoencoderConfig, Decoder, Encoder, check_codes
from mmlearn.models.image_tokens.codebook import Codebook
from mmlearn.objectives.codes import codebook_loss, commitment, copied_gradient


@dataclass(frozen=True)
class VQVAEConfig(AutoencoderConfig):
    decay: float = 0.99  # of the entries' moving averages; 0: they learn by their gradient
    beta: float = 0.25  # the weight of commitment
    restart_threshold: float = 0.1  # an entry chosen less often than this times its even share is made anew; 0: never
    seed: int = 0  # of what entries are made anew from

    PRESETS = {"tiny": TINY, "base": dict()}


class VQVAEOutput(NamedTuple):
    image: Float[Tensor, "b 3 height width"]  # decoded from the codes
    codes: Int[Tensor, "b p"]  # row by row
    z: Float[Tensor, "b p d"]  # the output of the encoder
    entries: Float[Tensor, "b p d"]  # the nearest entries


class VQVAE(StepCounter):
    r"""An encoder, the nearest entries of a codebook, and a decoder whose gradient is copied to the encoder.

    .. math:: z = f(x), \quad k = \arg\min_j \lVert z - e_j \rVert, \quad \hat x = g(z + \mathrm{sg}[e_k - z])

    Pixels are from −1 to 1. Raises ``ValueError`` for images of another size, and for codes outside the codebook.
    Source: section 3, equation 2 and figure 1.
    """

    def __init__(self, config: VQVAEConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, config.code_width)
        self.codebook = Codebook(
            config.num_codes, config.code_width, config.decay, config.restart_threshold, config.seed
        )
        self.decoder = Decoder(config, config.code_width)

    def forward(self, image: Float[Tensor, "b 3 height width"]) -> VQVAEOutput:
        z = self.encoder(image)  # (b, p, d)
        codes = self.codebook.nearest(z)  # (b, p)
        entries = self.codebook(codes)  # (b, p, d)
        return VQVAEOutput(self.decoder(copied_gradient(z, entries)), codes, z, entries)

    @torch.no_grad()
    def encode(self, image: Float[Tensor, "b 3 height width"]) -> Int[Tensor, "b p"]:
        """The codes of these images, row by row."""
        return self.codebook.nearest(self.encoder(image))

    def decode(self, codes: Int[Tensor, "b p"]) -> Float[Tensor, "b 3 height width"]:
        """The images for these codes."""
        check_codes(codes, self.config)
        return self.decoder(self.codebook(codes))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The squared error of ``pixels``, the ``commitment`` and, where entries have a gradient, the ``codebook``.

        Source: section 3.2.
        """
        return self.reconstruct(batch["image"])[1]

    def reconstruct(
        self, image: Float[Tensor, "b 3 height width"]
    ) -> tuple[Float[Tensor, "b 3 height width"], dict[str, Float[Tensor, ""]]]:
        """The reconstructed images, and the losses of :meth:`loss`.

        In training the codebook observes which vectors chose which entries.
        """
        output = self(image)
        if self.training:
            self.codebook.observe(output.z, output.codes)
        losses = {
            "pixels": F.mse_loss(output.image, image),
            "commitment": self.config.beta * commitment(output.z, output.entries),
        }
        if not self.config.decay:
            losses["codebook"] = codebook_loss(output.z, output.entries)
        return output.image, losses

    @torch.no_grad()
    def after_step(self) -> None:
        """Update the codebook, and count the step."""
        self.codebook.after_step(self.steps)
        super().after_step()
