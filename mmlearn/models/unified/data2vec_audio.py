"""data2vec for speech: from a masked clip a transformer predicts the features of its momentum copy of the whole clip.

Paper: Baevski et al. 2022, "data2vec: A General Framework for Self-supervised Learning in Speech, Vision and Language".
Official code: https://github.com/facebookresearch/fairseq (examples/data2vec).

Deviations: ``tiny`` is ours: it has few channels, normalised over what is real of a clip, spans of 80 ms, because its
clips last a second, and positions that do not read padding; those of the published sizes do, so that longer padding
changes the frames near a clip's end, as it does there. Blocks start scaled by width and depth. There is one
``dropout`` but for attention weights, and none of layers. Clips of a batch may have different numbers of hidden frames,
which the official code evens out. Losses are means over features. Released models have no head and no teacher; one with
a head for texts learns these by CTC.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.models.audio.checks import check_clips
from mmlearn.models.speech.context_network import ContextNetwork
from mmlearn.models.speech.encoder import TINY_SPEECH, CTCHead, SpeechEncoder, SpeechEncoderConfig
from mmlearn.models.unified.data2vec import Data2Vec, Data2VecConfig
from mmlearn.objectives.draws import generator_of_step, uncompiled
from mmlearn.objectives.speech import mask_spans

BASE = SpeechEncoderConfig(convolution_norm="layer", position_kernel=19)


@dataclass(frozen=True)
class Data2VecAudioConfig(Data2VecConfig):
    speech: SpeechEncoderConfig = BASE
    position_layers: int = 5  # convolutions in sequence that give frames their positions
    clip_positions: bool = False  # they read padding as zeros
    mask_probability: float = 0.065  # the share of frames that begin a span
    mask_length: int = 10  # frames
    vocab_size: int = 0  # of the texts; 0: no head
    blank: int = 0  # the blank token of CTC
    ctc_reduction: str = "sum"  # over the tokens of a text, or "mean"
    seed: int = 0  # of spans

    PRESETS = {
        "tiny": dict(speech=replace(TINY_SPEECH, position_kernel=5, norm_first=False), position_layers=2)
        | dict(clip_positions=True, mask_probability=0.12, mask_length=4)
        | dict(top_layers=2, decay_start=0.98, decay_end=0.998, decay_steps=300),
        "base": dict(),
        "large": dict(speech=replace(BASE, width=1024, depth=24, num_heads=16)),
    }


class Data2VecAudioOutput(NamedTuple):
    tokens: Float[Tensor, "b s d"]  # contextual frames
    mask: Bool[Tensor, "b s"]  # True where a frame is real
    prediction: Float[Tensor, "b s d"] | None  # of the teacher's target at each frame
    logits: Float[Tensor, "b s v"] | None  # of CTC


class StackedPositions(nn.Module):
    """Positions from neighbouring frames: several grouped convolutions, each normalised over features, with GELU.

    Without a ``mask`` padding is read as well. Source: official code, ``pos_conv_depth``.
    """

    def __init__(self, width: int, kernel: int, groups: int, layers: int):
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(width, width, kernel, groups=groups) for _ in range(layers))

    def forward(self, x: Float[Tensor, "b s d"], mask: Bool[Tensor, "b s"] | None = None) -> Float[Tensor, "b s d"]:
        for convolution in self.convolutions:
            kernel = convolution.kernel_size[0]
            x = convolution(F.pad(x.mT, (kernel // 2, (kernel - 1) // 2))).mT  # (b, s, d)
            x = F.gelu(F.layer_norm(x, x.shape[-1:]))
            x = x if mask is None else x.masked_fill(~mask[..., None], 0)
        return x


class StackedContext(ContextNetwork):
    """A context network of post-norm blocks whose positions are :class:`StackedPositions`."""

    def __init__(self, config: SpeechEncoderConfig, layers: int, clip_positions: bool):
        super().__init__(config)
        self.clip_positions = clip_positions
        self.positions = StackedPositions(config.width, config.position_kernel, config.position_groups, layers)

    def forward(
        self, x: Float[Tensor, "b s d"], mask: Bool[Tensor, "b s"], depth: int | None = None
    ) -> Float[Tensor, "b s d"]:
        x = x.masked_fill(~mask[..., None], 0)
        x = self.dropout(self.norm(x + self.positions(x, mask if self.clip_positions else None)))
        return self.transformer(x, mask)


class Data2VecAudio(Data2Vec):
    """A speech encoder that learns from itself.

    ``waveform_mask`` is True where a sample is real, ``masked`` (b, s) where a frame is masked. Raises ``ValueError``
    for pre-norm blocks, and as the parts of :mod:`mmlearn.models.speech.encoder` do.
    """

    config: Data2VecAudioConfig

    def __init__(self, config: Data2VecAudioConfig):
        super().__init__()
        if config.speech.norm_first:
            raise ValueError("data2vec's blocks are post-norm for speech: set norm_first=False.")
        self.config = config
        self.encoder = SpeechEncoder(config.speech)
        self.encoder.context = StackedContext(config.speech, config.position_layers, config.clip_positions)
        self.ctc_head = None
        if config.vocab_size:
            width, dropout, reduction = config.speech.width, config.speech.dropout, config.ctc_reduction
            self.ctc_head = CTCHead(width, config.vocab_size, blank=config.blank, dropout=dropout, reduction=reduction)
        self.add_teacher(config.speech.width, config.speech.depth)

    def blocks_of(self, encoder: SpeechEncoder) -> nn.ModuleList:
        return encoder.context.transformer.blocks

    @uncompiled
    def draw(self, mask: Bool[Tensor, "b s"]) -> Bool[Tensor, "b s"]:
        """Which frames to mask, of these real ones. It depends on the seed and the step alone."""
        config, generator = self.config, generator_of_step(self.config.seed, self.steps)
        return mask_spans(mask, probability=config.mask_probability, length=config.mask_length, generator=generator)

    def forward(
        self,
        waveform: Float[Tensor, "b samples"],
        waveform_mask: Bool[Tensor, "b samples"] | None = None,
        masked: Bool[Tensor, "b s"] | None = None,
    ) -> Data2VecAudioOutput:
        tokens, mask, _ = self.encoder(waveform, waveform_mask, masked)  # (b, s, d), (b, s)
        prediction = self.head(tokens) if self.head is not None else None
        return Data2VecAudioOutput(tokens, mask, prediction, self.ctc_head(tokens) if self.ctc_head else None)

    def predictions_and_targets(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The student's predictions from a masked clip, the teacher's features of the unmasked one, and the mask."""
        waveform, waveform_mask = check_clips(batch)
        real = self.encoder.frame_mask(waveform, waveform_mask)
        masked = batch["masked"] if "masked" in batch else self.draw(real)
        target = self.targets(waveform, waveform_mask, real=real, over_time=True)
        return self(waveform, waveform_mask, masked).prediction, target, masked & real

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``ctc`` where the batch has ``tokens`` and the model a head for them; else ``regression`` to the teacher.

        ``masked`` (b, s) may say which frames to mask; otherwise they are drawn for the step. ``ValueError`` without a
        waveform, for an empty batch, and with nothing to learn by.
        """
        waveform, waveform_mask = check_clips(batch)
        if self.ctc_head is not None and "tokens" in batch:
            output = self(waveform, waveform_mask, batch.get("masked"))
            return {"ctc": self.ctc_head.loss(output.logits, output.mask, batch["tokens"], batch.get("mask"))}
        if self.teacher is None:
            raise ValueError("Nothing to learn: this Data2VecAudio needs pretrain=True, or tokens and vocab_size.")
        return self.regression(*self.predictions_and_targets(batch))
