"""wav2vec 2.0: encode a masked clip, and tell each masked frame's code from those of other frames of the clip.

Paper: Baevski et al. 2020, "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations".
Official code: https://github.com/facebookresearch/fairseq (examples/wav2vec).

Deviations: ``tiny`` is ours: it has few channels, normalised over what is real of a clip, pre-norm blocks, codebooks of
32, noise whose temperature falls faster, and spans of 80 ms, because its clips last a second. Blocks start scaled by
width and depth, the official code's as BERT's. There is one ``dropout`` but for attention weights, and none of layers
or between the two layers of an MLP. Two parts of the base recipe are left out: a penalty on the size of the features,
and the scaling of the gradients of the convolutions by a tenth. At least one span of a clip is masked, in the official
code two. A distractor counts as the target where its codes are the same; the official code compares vectors, which
rounding may tell apart. Losses are means over masked frames, in Transformers sums. In evaluation diversity is that of
the codes in use, as in Transformers; the official code has that of their probabilities. When a text is learned, frames
are masked only where the batch says so, and channels never. Published models want each clip at mean 0 and variance 1:
:func:`mmlearn.data.speech_features.standardise`. With the norm "group", of the base model, longer padding changes the
frames, as it does there.
"""

from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import Config
from mmlearn.layers.gumbel import annealed, gumbel_noise
from mmlearn.layers.steps import StepCounter
from mmlearn.models.audio.checks import check_clips
from mmlearn.models.speech.encoder import LARGE_SPEECH, TINY_SPEECH, CTCHead, SpeechEncoder, SpeechEncoderConfig
from mmlearn.models.speech.quantiser import ProductQuantiser
from mmlearn.objectives import code_diversity, distractor_contrast, mask_spans, sample_distractors
from mmlearn.objectives.draws import generator_of_step, uncompiled


@dataclass(frozen=True)
class Wav2Vec2Config(Config):
    speech: SpeechEncoderConfig = SpeechEncoderConfig()
    codebooks: int = 2  # 0: no quantiser
    entries: int = 320  # of each codebook
    code_width: int = 256  # of the chosen entries, concatenated
    embedding_width: int = 256  # where context and codes are compared
    distractors: int = 100
    temperature: float = 0.1  # of the contrast, κ
    gumbel_temperature: tuple[float, float, float] = (2.0, 0.5, 0.999995)  # first, last, factor of a step
    diversity_weight: float = 0.1  # α
    mask_probability: float = 0.065  # the share of frames that begin a span
    mask_length: int = 10  # frames
    vocab_size: int = 0  # of the texts; 0: no head
    blank: int = 0  # the blank token of CTC
    ctc_reduction: str = "sum"  # over the tokens of a text, or "mean"
    seed: int = 0  # of spans, distractors and noise

    PRESETS = {
        "tiny": dict(speech=TINY_SPEECH, entries=32, code_width=64, embedding_width=64, distractors=20)
        | dict(gumbel_temperature=(1.0, 0.5, 0.98), mask_probability=0.12, mask_length=4),
        "base": dict(),
        "large": dict(
            speech=LARGE_SPEECH, code_width=768, embedding_width=768, gumbel_temperature=(2.0, 0.1, 0.999995)
        ),
    }


class Wav2Vec2Output(NamedTuple):
    tokens: Float[Tensor, "b s d"]  # contextual frames
    mask: Bool[Tensor, "b s"]  # True where a frame is real
    context: Float[Tensor, "b s e"] | None  # projected frames, which are compared with
    target: Float[Tensor, "b s e"] | None  # projected codes; None without a quantiser, as are these four
    codes: Int[Tensor, "b s groups"] | None  # the entry of each codebook
    probability: Float[Tensor, "b s groups entries"] | None
    logits: Float[Tensor, "b s v"] | None  # of CTC


class Draws(NamedTuple):
    """The random draws of a step."""

    masked: Bool[Tensor, "b s"]
    distractor: Int[Tensor, "b s k"]
    gumbel: Float[Tensor, "b s groups entries"]


class Wav2Vec2(StepCounter):
    r"""A transformer reads the masked clip. A quantiser reads the unmasked one, and makes the targets.

    .. math:: z = f(x), \quad q = \mathrm{quantise}(z) W_q, \quad c = g(\mathrm{mask}(z)) W_c

    ``waveform_mask`` is True where a sample is real, ``masked`` (b, s) where a frame is masked. With ``gumbel`` noise
    (b, s, codebooks, entries) codes are samples, without it the likeliest. To learn texts, build a model with
    ``vocab_size`` and load the ``speech`` of a pretrained one. Raises ``ValueError`` as the parts of
    :mod:`mmlearn.models.speech.encoder` do.
    Source: sections 2 and 3 and figure 1.
    """

    def __init__(self, config: Wav2Vec2Config):
        super().__init__()
        self.config = config
        self.speech = SpeechEncoder(config.speech)
        width, feature_width = config.speech.width, config.speech.channels[-1]
        self.quantiser = self.ctc_head = None
        if config.codebooks:
            self.quantiser = ProductQuantiser(feature_width, config.codebooks, config.entries, config.code_width)
            self.context_projection = nn.Linear(width, config.embedding_width)
            self.target_projection = nn.Linear(config.code_width, config.embedding_width)
        if config.vocab_size:
            blank, dropout, reduction = config.blank, config.speech.dropout, config.ctc_reduction
            self.ctc_head = CTCHead(width, config.vocab_size, blank=blank, dropout=dropout, reduction=reduction)

    @property
    def gumbel_temperature(self) -> Float[Tensor, ""]:
        """The temperature τ of the straight-through choice at this step. Source: section 4.2."""
        return annealed(self.config.gumbel_temperature, self.steps)

    @uncompiled
    def draw(self, real: Bool[Tensor, "b s"], masked: Bool[Tensor, "b s"] | None = None) -> Draws:
        """Spans, distractors and noise for clips with these real frames. They depend on the seed and the step alone.

        Spans may be given as ``masked``.
        """
        config = self.config
        generator = generator_of_step(config.seed, self.steps)
        spans = dict(probability=config.mask_probability, length=config.mask_length)
        masked = real & (mask_spans(real, generator=generator, **spans) if masked is None else masked)
        distractor = sample_distractors(masked, config.distractors, generator=generator)
        noise = gumbel_noise((*real.shape, config.codebooks, config.entries), generator=generator)
        return Draws(masked, distractor, noise.to(real.device))

    def forward(
        self,
        waveform: Float[Tensor, "b samples"],
        waveform_mask: Bool[Tensor, "b samples"] | None = None,
        masked: Bool[Tensor, "b s"] | None = None,
        gumbel: Float[Tensor, "b s groups entries"] | None = None,
    ) -> Wav2Vec2Output:
        tokens, mask, features = self.speech(waveform, waveform_mask, masked)  # (b, s, d), (b, s), (b, s, c)
        context = target = codes = probability = None
        if self.quantiser is not None:
            # Targets come from the unmasked features.
            vectors, codes, probability = self.quantiser(features, gumbel, self.gumbel_temperature)
            context, target = self.context_projection(tokens), self.target_projection(vectors)
        logits = self.ctc_head(tokens) if self.ctc_head is not None else None
        return Wav2Vec2Output(tokens, mask, context, target, codes, probability, logits)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``ctc`` where the batch has ``tokens`` and the model a head for them; else ``contrastive`` and ``diversity``.

        ``masked``, ``distractor`` and ``gumbel`` (see :class:`Draws`) may be in the batch; those that are missing are
        drawn for the step. Noise is added in training only. Raises ``ValueError`` without a waveform, for an empty
        batch, and where nothing can be learned from it.
        """
        waveform, waveform_mask = check_clips(batch)
        if self.ctc_head is not None and "tokens" in batch:
            output = self(waveform, waveform_mask, batch.get("masked"))
            return {"ctc": self.ctc_head.loss(output.logits, output.mask, batch["tokens"], batch.get("mask"))}
        if self.quantiser is None:
            raise ValueError("Nothing to learn: this Wav2Vec2 needs tokens in the batch and vocab_size, or codebooks.")
        real = self.speech.frame_mask(waveform, waveform_mask)
        masked, distractor, gumbel = self.draw(real, batch.get("masked"))
        distractor, gumbel = batch.get("distractor", distractor), batch.get("gumbel", gumbel)
        output = self(waveform, waveform_mask, masked, gumbel if self.training else None)
        contrast = distractor_contrast(
            output.context, output.target, output.codes, distractor, masked, self.config.temperature
        )
        diversity = code_diversity(output.probability, masked)
        return {"contrastive": contrast, "diversity": self.config.diversity_weight * diversity}
