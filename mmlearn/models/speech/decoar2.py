"""DeCoAR 2.0: encode a masked spectrogram, quantise the encoding, and reconstruct the masked frames from the codes.

Paper: Ling & Liu 2020, "DeCoAR 2.0: Deep Contextualized Acoustic Representations with Vector Quantization". Official
code: https://github.com/awslabs/speech-representations.

Deviations: ``tiny`` is ours. Blocks start scaled by width and depth. Logits of codes start with a deviation of 5; those
of wav2vec 2.0's quantiser start with the square root of the width, which leaves more entries unused. There is one
``dropout``, and no dropout of layers or between the two layers of an MLP. Both losses are means: the reconstruction's
over masked frames and bands, diversity's over masked frames. Diversity has the form of wav2vec 2.0's official code
(:func:`mmlearn.objectives.speech.code_diversity`). A masked frame becomes one learned vector after the projection.
Spectrograms are not normalised here: bring each band to mean 0 and variance 1.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers.gumbel import annealed, gumbel_noise
from mmlearn.layers.steps import StepCounter
from mmlearn.models.audio.checks import real_frames
from mmlearn.models.speech.context_network import TINY_CONTEXT, ContextConfig, ContextNetwork, mask_frames
from mmlearn.models.speech.quantiser import ProductQuantiser
from mmlearn.objectives.draws import generator_of_step, uncompiled
from mmlearn.objectives.reconstruction import masked_l1
from mmlearn.objectives.speech import code_diversity, mask_spans
from mmlearn.tensor_checks import values_are_readable


@dataclass(frozen=True)
class DeCoAR2Config(ContextConfig):
    width: int = 768
    depth: int = 12
    num_heads: int = 12  # of the released model; the paper has 8
    norm_first: bool = False
    dropout: float = 0.1
    mels: int = 80  # bands of the spectrogram
    codebooks: int = 2  # 0: no quantiser and no reconstruction
    entries: int = 320  # of each codebook
    code_width: int = 768  # of the chosen entries, concatenated
    gumbel_temperature: tuple[float, float, float] = (2.0, 0.5, 0.999995)  # first, last, factor of a step
    diversity_weight: float = 0.1  # α
    mask_probability: float = 0.065  # the share of frames that begin a span
    mask_length: int = 20  # frames
    seed: int = 0  # of spans and noise

    PRESETS = {
        "tiny": TINY_CONTEXT
        | dict(mels=40, norm_first=True, entries=32, code_width=64)
        | dict(gumbel_temperature=(2.0, 0.5, 0.99), mask_length=10),
        "base": dict(),
    }


class DeCoAR2Output(NamedTuple):
    tokens: Float[Tensor, "b s d"]  # contextual frames, which other tasks use
    mask: Bool[Tensor, "b s"]  # True where a frame is real
    mel: Float[Tensor, "b mels s"] | None  # reconstructed from the codes; None without a quantiser, here and below
    codes: Int[Tensor, "b s groups"] | None
    probability: Float[Tensor, "b s groups entries"] | None


class Draws(NamedTuple):
    """The random draws of a step."""

    masked: Bool[Tensor, "b s"]
    gumbel: Float[Tensor, "b s groups entries"]


class DeCoAR2(StepCounter):
    r"""A transformer reads log-mel frames with masked spans. Codes of its outputs reconstruct the spectrogram.

    .. math:: h = g(\mathrm{mask}(x W)), \quad q = \mathrm{quantise}(h), \quad \hat x = \mathrm{FFN}(q)

    ``mel_mask`` is True where a frame is real, ``masked`` where it is masked. With ``gumbel`` noise (b, s, codebooks,
    entries) codes are samples, without it the likeliest. Raises ``ValueError`` as
    :func:`~mmlearn.models.audio.checks.real_frames` and :func:`~mmlearn.models.speech.context_network.mask_frames` do.
    Source: section 2 and figure 1.
    """

    def __init__(self, config: DeCoAR2Config):
        super().__init__()
        self.config = config
        width = config.width
        self.projection = nn.Linear(config.mels, width)
        self.mask_embedding = nn.Parameter(torch.rand(width))
        self.context = ContextNetwork(config)
        self.quantiser = None
        if config.codebooks:
            self.quantiser = ProductQuantiser(width, config.codebooks, config.entries, config.code_width)
            nn.init.normal_(self.quantiser.logits.weight, std=5 * width**-0.5)
            first, last = nn.Linear(config.code_width, width), nn.Linear(width, config.mels)
            self.reconstruction = nn.Sequential(first, nn.ReLU(), last)

    @property
    def gumbel_temperature(self) -> Float[Tensor, ""]:
        """The temperature τ of the straight-through choice at this step."""
        return annealed(self.config.gumbel_temperature, self.steps)

    @uncompiled
    def draw(self, mask: Bool[Tensor, "b s"]) -> Draws:
        """Masked spans and noise for clips with these real frames. They depend on the seed and the step alone.

        Padding behind the longest clip takes no random numbers, where values can be read
        (:func:`~mmlearn.tensor_checks.values_are_readable`): it changes nothing.
        """
        config, generator = self.config, generator_of_step(self.config.seed, self.steps)
        longest = int(mask.any(0).sum()) if values_are_readable(mask) else mask.shape[1]
        real, behind = mask[:, :longest], mask.shape[1] - longest
        masked = mask_spans(real, probability=config.mask_probability, length=config.mask_length, generator=generator)
        noise = gumbel_noise((*real.shape, config.codebooks, config.entries), generator=generator).to(mask.device)
        return Draws(F.pad(masked, (0, behind)), F.pad(noise, (0, 0, 0, 0, 0, behind)))

    def forward(
        self,
        mel: Float[Tensor, "b mels s"],
        mel_mask: Bool[Tensor, "b s"] | None = None,
        masked: Bool[Tensor, "b s"] | None = None,
        gumbel: Float[Tensor, "b s groups entries"] | None = None,
    ) -> DeCoAR2Output:
        mask = real_frames(mel, mel_mask, self.config.mels)
        x = mask_frames(self.projection(mel.mT), masked, self.mask_embedding)  # (b, s, d)
        tokens = self.context(x, mask)
        if self.quantiser is None:
            return DeCoAR2Output(tokens, mask, None, None, None)
        vectors, codes, probability = self.quantiser(tokens, gumbel, self.gumbel_temperature)
        return DeCoAR2Output(tokens, mask, self.reconstruction(vectors).mT, codes, probability)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``reconstruction`` of masked frames, and ``diversity`` of the codes there.

        ``masked`` and ``gumbel`` (see :class:`Draws`) may be in the batch; those that are missing are drawn for the
        step. Noise is added in training only. Raises ``ValueError`` without ``mel`` or for an empty batch.
        Source: section 2.
        """
        if "mel" not in batch:
            found = ", ".join(batch) or "nothing"
            raise ValueError(f"DeCoAR 2.0 learns from mel (b, mels, s); this batch has {found}.")
        if self.quantiser is None:
            raise ValueError("Nothing to learn: this DeCoAR 2.0 has no quantiser; set codebooks in its configuration.")
        mel = batch["mel"]
        if not len(mel):
            raise ValueError("A batch holds at least one clip.")
        real = real_frames(mel, batch.get("mel_mask"), self.config.mels)
        masked, gumbel = self.draw(real)
        masked, gumbel = batch.get("masked", masked) & real, batch.get("gumbel", gumbel)
        output = self(mel, real, masked, gumbel if self.training else None)
        return {
            "reconstruction": masked_l1(output.mel.mT, mel.mT, masked),
            "diversity": self.config.diversity_weight * code_diversity(output.probability, masked),
        }
