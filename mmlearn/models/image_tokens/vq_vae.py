"""VQ-VAE: a picture becomes a grid of codes, each the nearest entry of a codebook, from which it is painted again.

Paper: van den Oord et al. 2017, "Neural Discrete Representation Learning". Official code: Sonnet's
``vqvae_example.ipynb`` (https://github.com/google-deepmind/sonnet).

Deviations: entries are moving averages, as in the paper's appendix A.1; its experiments let them learn by their
gradient, as ``decay`` 0 does. Averages of a codebook start at one choice of each entry, where the official code starts
at none and corrects for it, and they are not smoothed. Entries begin as vectors of the first batch, and those that
nothing chooses come to life again, as in Jukebox (Dhariwal et al. 2020), unless ``restart_threshold`` is 0. The
residual blocks are as wide inside as outside. ``tiny`` and ``base`` are ours.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mmlearn.layers.steps import CountsSteps
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
    image: Float[Tensor, "b 3 height width"]  # painted from the codes
    codes: Int[Tensor, "b p"]  # row by row
    z: Float[Tensor, "b p d"]  # what the encoder says, which chooses
    entries: Float[Tensor, "b p d"]  # what it chose


class VQVAE(CountsSteps):
    r"""An encoder, the choice of the nearest entry, and a decoder that the gradient reaches as if nothing was chosen.

    .. math:: z = f(x), \quad k = \arg\min_j \lVert z - e_j \rVert, \quad \hat x = g(z + \mathrm{sg}[e_k - z])

    Pixels are from −1 to 1. Raises ``ValueError`` for pictures of another size, and for codes that there are not.
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
        z = self.encoder(image)
        codes = self.codebook.choose(z)
        entries = self.codebook(codes)
        return VQVAEOutput(self.decoder(copied_gradient(z, entries)), codes, z, entries)

    @torch.no_grad()
    def codes(self, image: Float[Tensor, "b 3 height width"]) -> Int[Tensor, "b p"]:
        """The codes of these pictures, row by row."""
        return self.codebook.choose(self.encoder(image))

    def picture(self, codes: Int[Tensor, "b p"]) -> Float[Tensor, "b 3 height width"]:
        """What the decoder paints from these codes."""
        check_codes(codes, self.config)
        return self.decoder(self.codebook(codes))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The squared error of ``pixels``, the ``commitment`` and, where entries have a gradient, the ``codebook``.

        Source: section 3.2.
        """
        return self.rebuild(batch["image"])[1]

    def rebuild(
        self, image: Float[Tensor, "b 3 height width"]
    ) -> tuple[Float[Tensor, "b 3 height width"], dict[str, Float[Tensor, ""]]]:
        """The pictures as they are painted, and what :meth:`loss` says of them.

        In training the codebook sees which vectors chose what.
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
        """Move the codebook, and count the step."""
        self.codebook.after_step(self.steps)
        super().after_step()
