"""Discrete VAE: an image becomes a grid of codes that are sampled, with a gradient by the Gumbel softmax.

Paper: Ramesh et al. 2021, "Zero-Shot Text-to-Image Generation" (DALL·E), section 2.1, its first stage. Official code:
https://github.com/openai/DALL-E.

Deviations: encoder and decoder are those of VQ-VAE (:mod:`mmlearn.models.image_tokens.autoencoder`), not the deeper
bottleneck networks of the official code. The decoder reads entries of 64 numbers, there 128. The scale of the Laplace
distribution has a minimum, e⁻⁵ by default (``least_log_scale``). ``tiny`` and ``base`` are ours; ``base`` has the
paper's codes and schedules. Not compared with released code: the released networks are deeper, and their weights are
pickled.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmlearn.layers.gumbel import gumbel_noise, relaxed_choice
from mmlearn.layers.steps import StepCounter
from mmlearn.models.image_tokens.autoencoder import TINY, AutoencoderConfig, Decoder, Encoder, check_codes
from mmlearn.objectives.codes import (
    cosine_ramp,
    divergence_from_even,
    from_open_interval,
    logit_laplace,
    to_open_interval,
)
from mmlearn.objectives.draws import generator_of_step


@dataclass(frozen=True)
class DiscreteVAEConfig(AutoencoderConfig):
    temperature: float = 1.0  # of the relaxed choice, τ, at the start
    last_temperature: float = 1 / 16
    temperature_steps: int = 150_000  # in which it falls
    kl_weight: float = 6.6  # β, once it has risen from 0
    kl_steps: int = 5_000  # in which it rises
    least_log_scale: float = -5.0  # of the Laplace distribution; a small scale lets even grounds count for most
    seed: int = 0  # of noise

    PRESETS = {
        "tiny": TINY | dict(temperature_steps=300, kl_steps=0),
        "base": dict(image_size=256, halvings=3, num_codes=8192),
    }


class DiscreteVAEOutput(NamedTuple):
    image: Float[Tensor, "b 3 height width"]  # decoded from the codes, from −1 to 1
    logits: Float[Tensor, "b p k"]  # of each code
    mean: Float[Tensor, "b 3 height width"]  # of the Laplace distribution of pixels' logits
    log_scale: Float[Tensor, "b 3 height width"]  # and the logarithm of its scale


class DiscreteVAE(StepCounter):
    r"""An encoder that predicts the codes of each position, a sample of codes, and a decoder that predicts pixels.

    .. math:: q(k \mid x) = \mathrm{softmax}(f(x)), \quad y = \mathrm{softmax}\big((f(x) + n) / \tau\big), \quad
       \hat x = g(y E)

    In training y is a mixture of entries that comes nearer to one of them as τ falls. Without ``gumbel`` noise
    (b, p, k) the likeliest code is taken, which has no gradient. Pixels are from −1 to 1. Raises ``ValueError`` for
    images of another size, and for codes outside the codebook. Source: section 2.1, appendix A.
    """

    def __init__(self, config: DiscreteVAEConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, config.num_codes)
        self.entries = nn.Parameter(torch.randn(config.num_codes, config.code_width) * config.code_width**-0.5)
        self.decoder = Decoder(config, config.code_width, channels=6)

    @property
    def temperature(self) -> Float[Tensor, ""]:
        """τ now. Source: appendix A.2."""
        config = self.config
        return cosine_ramp(self.steps, config.temperature_steps, config.temperature, config.last_temperature).float()

    @property
    def kl_weight(self) -> Float[Tensor, ""]:
        """β now. Source: appendix A.2."""
        return cosine_ramp(self.steps, self.config.kl_steps, 0.0, self.config.kl_weight).float()

    def sample_noise(self, b: int) -> Float[Tensor, "b p k"]:
        """Gumbel noise for b images. It depends on the seed and the step alone."""
        generator = generator_of_step(self.config.seed, self.steps)
        return gumbel_noise((b, self.config.side**2, self.config.num_codes), generator=generator)

    def forward(
        self, image: Float[Tensor, "b 3 height width"], gumbel: Float[Tensor, "b p k"] | None = None
    ) -> DiscreteVAEOutput:
        logits = self.encoder(image)  # (b, p, k)
        if gumbel is None:
            vectors = self.entries[logits.argmax(-1)]  # (b, p, d)
        else:
            choice = relaxed_choice(in_float32(logits), gumbel.to(logits.device), self.temperature)  # (b, p, k)
            vectors = choice.to(self.entries) @ self.entries  # (b, p, d)
        mean, log_scale = self._pixel_distribution(vectors)
        return DiscreteVAEOutput(2 * from_open_interval(mean.sigmoid()) - 1, logits, mean, log_scale)

    def _pixel_distribution(self, vectors: Float[Tensor, "b p d"]) -> tuple[Tensor, Tensor]:
        mean, log_scale = self.decoder(vectors).chunk(2, dim=1)  # (b, 3, height, width) each
        return in_float32(mean), in_float32(log_scale).clamp(min=self.config.least_log_scale)

    @torch.no_grad()
    def encode(self, image: Float[Tensor, "b 3 height width"]) -> Int[Tensor, "b p"]:
        """The likeliest codes of these images, row by row."""
        return self.encoder(image).argmax(-1)

    def decode(self, codes: Int[Tensor, "b p"]) -> Float[Tensor, "b 3 height width"]:
        """The likeliest image for these codes."""
        check_codes(codes, self.config)
        return 2 * from_open_interval(self._pixel_distribution(self.entries[codes])[0].sigmoid()) - 1

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        r"""The evidence lower bound, with its sign changed, a number of a pixel: ``rebuilding`` and ``kl``.

        .. math:: -\frac{1}{3hw} \big( \mathbb{E}_q \log p(x \mid y) - \beta\, D_\mathrm{KL}(q \,\|\, \mathrm{U}) \big)

        Noise is added in training only. Source: equation 1, appendix A.2 and A.3.
        """
        image = batch["image"]
        output = self(image, self.sample_noise(len(image)) if self.training else None)
        pixels = to_open_interval((in_float32(image) + 1) / 2).clamp(1e-3, 1 - 1e-3)  # where data go beyond −1 and 1
        divergence = divergence_from_even(in_float32(output.logits)).sum(1).mean() / math.prod(image.shape[1:])
        reconstruction = logit_laplace(pixels, output.mean, output.log_scale).mean()
        return {"rebuilding": reconstruction, "kl": self.kl_weight * divergence}


def in_float32(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """At least 32 bits, because sums over all pixels and codes are large."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
