"""HuBERT: cluster the frames of speech, predict the clusters of masked frames, and cluster the learned features again.

Paper: Hsu et al. 2021, "HuBERT: Self-Supervised Speech Representation Learning by Masked Prediction of Hidden Units".
Official code: https://github.com/facebookresearch/fairseq (examples/hubert).

Deviations: ``tiny`` is ours: it has few channels, normalised over what is real of a clip, pre-norm blocks, 50 clusters,
and spans of 80 ms, because its clips last a second. Blocks start scaled by width and depth, the official code's as
BERT's. There is one ``dropout`` but for attention weights, and none of layers or between the two layers of an MLP. Two
parts of the base recipe are left out: a penalty on the size of the features, and the scaling of the gradients of the
convolutions by a tenth. At least one span of a clip is masked, in the official code two. k-means takes all frames at
once and begins once; the official code takes batches of them, and the best of 20 beginnings. The vectors of clusters
start normal, in the code uniform from 0 to 1. One set of clusters is predicted, not an ensemble of several. When a text
is learned, frames are masked only where the batch says so, and channels never. Published models want each clip at mean
0 and variance 1: :func:`mmlearn.data.speech_features.standardise`. With the norm "group", of the base model, longer
padding changes the frames, as it does there.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.layers import Config
from mmlearn.layers.steps import StepCounter
from mmlearn.models.audio.checks import check_clips
from mmlearn.models.speech.encoder import LARGE_SPEECH, TINY_SPEECH, CTCHead, SpeechEncoder, SpeechEncoderConfig
from mmlearn.objectives.draws import generator_of_step, uncompiled
from mmlearn.objectives.speech import mask_spans, masked_cluster


@dataclass(frozen=True)
class HuBERTConfig(Config):
    speech: SpeechEncoderConfig = SpeechEncoderConfig()
    clusters: int = 500  # 0: no head
    embedding_width: int = 256  # where frames and clusters are compared
    temperature: float = 0.1  # of that comparison, τ
    alpha: float = 1.0  # the weight of masked frames; the rest is that of unmasked ones
    mask_probability: float = 0.08  # the share of frames that begin a span
    mask_length: int = 10  # frames
    vocab_size: int = 0  # of the texts; 0: no head
    blank: int = 0  # the blank token of CTC
    ctc_reduction: str = "sum"  # over the tokens of a text, or "mean"
    seed: int = 0  # of spans

    PRESETS = {
        "tiny": dict(speech=TINY_SPEECH, clusters=50, embedding_width=64, mask_probability=0.12, mask_length=4),
        "base": dict(),
        "large": dict(speech=replace(LARGE_SPEECH, convolution_bias=False), embedding_width=768),
        "x-large": dict(
            speech=replace(LARGE_SPEECH, convolution_bias=False, width=1280, depth=48), embedding_width=1024
        ),
    }


class HuBERTOutput(NamedTuple):
    tokens: Float[Tensor, "b s d"]  # contextual frames
    mask: Bool[Tensor, "b s"]  # True where a frame is real
    cluster_logits: Float[Tensor, "b s c"] | None
    logits: Float[Tensor, "b s v"] | None  # of CTC


class HuBERT(StepCounter):
    r"""A transformer reads the masked clip; each of its frames is compared with one vector for every cluster.

    .. math:: p(c \mid \tilde x, t) = \frac{\exp(\mathrm{sim}(A o_t, e_c) / \tau)}
       {\sum_{c'} \exp(\mathrm{sim}(A o_t, e_{c'}) / \tau)}

    ``waveform_mask`` is True where a sample is real, ``masked`` (b, s) where a frame is masked. To learn texts, build a
    model with ``vocab_size`` and load the ``speech`` of a pretrained one. The clusters come in the batch. Raises
    ``ValueError`` as the parts of :mod:`mmlearn.models.speech.encoder` do. Source: sections II-A to II-D, equation 3
    and figure 1.
    """

    def __init__(self, config: HuBERTConfig):
        super().__init__()
        self.config = config
        self.speech = SpeechEncoder(config.speech)
        width = config.speech.width
        self.projection = self.ctc_head = None
        if config.clusters:
            self.projection = nn.Linear(width, config.embedding_width)
            self.cluster_embedding = nn.Parameter(torch.randn(config.clusters, config.embedding_width))
        if config.vocab_size:
            blank, dropout, reduction = config.blank, config.speech.dropout, config.ctc_reduction
            self.ctc_head = CTCHead(width, config.vocab_size, blank=blank, dropout=dropout, reduction=reduction)

    @uncompiled
    def draw(self, mask: Bool[Tensor, "b s"]) -> Bool[Tensor, "b s"]:
        """Which frames to mask of clips with these real frames. It depends on the seed and the step alone."""
        config, generator = self.config, generator_of_step(self.config.seed, self.steps)
        return mask_spans(mask, probability=config.mask_probability, length=config.mask_length, generator=generator)

    def forward(
        self,
        waveform: Float[Tensor, "b samples"],
        waveform_mask: Bool[Tensor, "b samples"] | None = None,
        masked: Bool[Tensor, "b s"] | None = None,
    ) -> HuBERTOutput:
        tokens, mask, _ = self.speech(waveform, waveform_mask, masked)  # (b, s, d), (b, s)
        cluster_logits = None
        if self.projection is not None:
            # Cosines with every cluster's vector, over the temperature.
            frames = F.normalize(self.projection(tokens), dim=-1)  # (b, s, e)
            cluster_logits = frames @ F.normalize(self.cluster_embedding, dim=-1).T / self.config.temperature
        logits = self.ctc_head(tokens) if self.ctc_head is not None else None
        return HuBERTOutput(tokens, mask, cluster_logits, logits)

    @torch.no_grad()
    def block_output(self, waveform: Float[Tensor, "samples"], block: int) -> Float[Tensor, "s d"]:
        """The frames of one clip after this number of blocks, in evaluation mode, which the next iteration clusters.

        The paper takes block 6 of 12 after the first iteration and 9 after the second. Raises ``ValueError`` for a
        block that does not exist.
        """
        if not 0 <= block <= self.config.speech.depth:
            raise ValueError(f"block is from 0 to {self.config.speech.depth}, got {block}.")
        training = self.training
        self.eval()
        frames = self.speech(waveform[None], depth=block).tokens[0]
        self.train(training)
        return frames

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``ctc`` where the batch has ``tokens`` and the model a head for them; else ``cluster``.

        ``cluster`` (b, s) is the number of each frame, -100 in padding. ``masked`` (b, s) may say
        which frames to mask; otherwise they are drawn for the step. Raises ``ValueError`` without a waveform, for an
        empty batch, where nothing can be learned from it, and for clusters of another shape.
        """
        waveform, waveform_mask = check_clips(batch)
        if self.ctc_head is not None and "tokens" in batch:
            output = self(waveform, waveform_mask, batch.get("masked"))
            return {"ctc": self.ctc_head.loss(output.logits, output.mask, batch["tokens"], batch.get("mask"))}
        if self.projection is None or "cluster" not in batch:
            raise ValueError(
                "Nothing to learn: this HuBERT needs cluster in the batch and clusters, or tokens and vocab_size."
            )
        real, label = self.speech.frame_mask(waveform, waveform_mask), batch["cluster"]
        if label.shape != real.shape:
            found = f"These clips have {tuple(real.shape)} frames, and cluster numbers {tuple(label.shape)}"
            raise ValueError(f"{found}: make them of the same clips.")
        masked = batch["masked"] if "masked" in batch else self.draw(real)
        logits = self(waveform, waveform_mask, masked).cluster_logits
        return {"cluster": masked_cluster(logits, label.masked_fill(~real, -100), masked, self.config.alpha)}
