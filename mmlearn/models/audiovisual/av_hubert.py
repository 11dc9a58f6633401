"""AV-HuBERT: predict the clusters of speech frames whose sound, lips or both are masked, from the rest of both.

Paper: Shi et al. 2022, "Learning Audio-Visual Speech Representation by Masked Multimodal Cluster Prediction". Official
code: https://github.com/facebookresearch/av_hubert.

Deviations: ``tiny`` is ours: small convolutions and 50 clusters. Blocks start scaled by width and depth, the official
code's as BERT's; the first convolution starts by He's rule, the official code's as PyTorch has it. There is one
``dropout``, and no dropout of layers or between the two layers of an MLP. Each clip drops its own modality; the
official code draws once for a batch. At least one span of a clip and modality is masked, in the official code two. A
masked span of pictures shows another span of the same clip, which wraps around the end of the clip, so that it always
has the same length. In the official code it starts anywhere else, and its last picture is repeated beyond the end.
Frames that are not masked have no loss (α = 0 in equation 4), as in the released ``base``; ``large`` was trained with a
weight of 1 for them. Two parts of the recipe are left out: a penalty of ten times the mean square of the features, and
the scaling by a tenth of the gradients of what comes before the transformer. Fine-tuning has the CTC head, not the
decoder. Pictures are made grey here. The data must cut out the lips and scale spectrograms.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers.steps import StepCounter
from mmlearn.models.audiovisual.residual import initialise_convolutions, residual_trunk
from mmlearn.models.speech.context_network import TINY_CONTEXT, ContextConfig, ContextNetwork, mask_frames
from mmlearn.models.speech.encoder import CTCHead
from mmlearn.objectives.audio_visual import masked_multimodal_cluster, modality_dropout
from mmlearn.objectives.draws import generator_of_step, uncompiled
from mmlearn.objectives.speech import mask_spans

GREY = (0.299, 0.587, 0.114)  # the weights of red, green and blue in ITU-R BT.601


@dataclass(frozen=True)
class AVHuBERTConfig(ContextConfig):
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    dropout: float = 0.1
    mels: int = 26  # bands of the spectrogram
    stack: int = 4  # frames of the spectrogram for each frame of the video: 100 and 25 a second
    video_widths: tuple[int, ...] = (64, 128, 256, 512)  # of ResNet-18's stages
    video_blocks: int = 2  # of each stage
    video_kernel: tuple[int, int, int] = (5, 7, 7)  # of the first convolution: frames, rows, columns
    clusters: int = 2000  # 0: no head
    embedding_width: int = 256  # where frames and clusters are compared
    temperature: float = 0.1  # of that comparison
    both_probability: float = 0.5  # p_m: that a clip keeps both modalities
    audio_probability: float = 0.5  # p_a: that a clip with one modality keeps the sound
    audio_mask_probability: float = 0.08  # the share of frames that begin a span
    audio_mask_length: int = 10  # frames of the video
    video_mask_probability: float = 0.06
    video_mask_length: int = 5
    vocab_size: int = 0  # of the texts; 0: no head
    blank: int = 0  # the blank token of CTC
    seed: int = 0  # of spans and of modality dropout

    PRESETS = {
        "tiny": TINY_CONTEXT
        | dict(mels=40, video_widths=(8, 16, 32), video_blocks=1, video_kernel=(3, 5, 5))
        | dict(clusters=50, embedding_width=64),
        "base": dict(),
        "large": dict(width=1024, depth=24, num_heads=16),
    }


class AVHuBERTOutput(NamedTuple):
    tokens: Float[Tensor, "b f d"]  # contextual frames
    mask: Bool[Tensor, "b f"]  # True where a frame is real
    cluster_logits: Float[Tensor, "b f c"] | None
    logits: Float[Tensor, "b f v"] | None  # of CTC


class Draws(NamedTuple):
    """The random draws of a step."""

    audio_masked: Bool[Tensor, "b f"]
    video_masked: Bool[Tensor, "b f"]
    imposter: Int[Tensor, "b f"]  # for each frame, the frame whose picture it shows
    audio_kept: Bool[Tensor, "b"]
    video_kept: Bool[Tensor, "b"]


class LipEncoder(nn.Module):
    """One vector for each frame of a grey video, (b, f, widths[-1]). Padded frames are black.

    A convolution over space and time, then a ResNet with PReLU for each frame. Source: section 3.2; Stafylakis
    & Tzimiropoulos 2017 for the design.
    """

    def __init__(self, widths: tuple[int, ...], blocks: int, kernel: tuple[int, int, int]):
        super().__init__()
        padding = kernel[0] // 2, kernel[1] // 2, kernel[2] // 2
        self.convolution = nn.Conv3d(1, widths[0], kernel, stride=(1, 2, 2), padding=padding, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        self.activation = nn.PReLU(widths[0])
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.trunk = residual_trunk(widths, blocks, activation=nn.PReLU)
        self.apply(initialise_convolutions)

    def forward(self, video: Float[Tensor, "b f height width"], mask: Bool[Tensor, "b f"]) -> Float[Tensor, "b f c"]:
        x = self.convolution(video.masked_fill(~mask[..., None, None], 0)[:, None])  # (b, c, f, row, column)
        x = rearrange(x, "b c f row column -> (b f) c row column")
        x = self.trunk(self.pool(self.activation(self.norm(x)))).mean((2, 3))  # (b f, c)
        return x.unflatten(0, mask.shape)  # (b, f, c)


class AVHuBERT(StepCounter):
    r"""Frames of sound and video, concatenated, through one transformer; each is compared with every cluster.

    .. math:: f^{av}_t = \begin{cases} [f^a_t; f^v_t] & p_m \\ [f^a_t; 0] & (1 - p_m) p_a \\
       [0; f^v_t] & (1 - p_m)(1 - p_a) \end{cases}, \quad
       p_t(c) = \mathrm{softmax}_c \left(\frac{\cos(A e_t, W_c)}{\tau}\right)

    ``video`` or ``mel`` may be None: a missing modality is 0, as a dropped one is. Each frame of the video has
    ``stack`` frames of the spectrogram; up to ``stack`` more at its end are left out. ``video_mask`` is True where
    a frame is real, or else ``mel_mask``. ``draws`` are what to mask and to drop. To learn texts, build a model with
    ``vocab_size`` and load what a pretrained one has. Clusters come in the batch. Raises ``ValueError`` where both
    modalities are missing, do not fit each other, or have no frame, and as
    :func:`~mmlearn.models.speech.context_network.mask_frames` does.
    Source: sections 3.2 and 3.3, equations 2 to 4.
    """

    def __init__(self, config: AVHuBERTConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.mask_embedding = nn.Parameter(torch.rand(config.stack * config.mels))
        self.audio_projection = nn.Linear(config.stack * config.mels, width)
        self.lip_encoder = LipEncoder(config.video_widths, config.video_blocks, config.video_kernel)
        self.video_projection = nn.Linear(config.video_widths[-1], width)
        self.fusion_norm = nn.LayerNorm(2 * width)
        self.fusion = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(config.dropout)
        self.context = ContextNetwork(config)
        self.projection = self.ctc_head = None
        if config.clusters:
            self.projection = nn.Linear(width, config.embedding_width)
            self.cluster_embedding = nn.Parameter(torch.rand(config.clusters, config.embedding_width))
        if config.vocab_size:
            self.ctc_head = CTCHead(width, config.vocab_size, blank=config.blank, dropout=config.dropout)

    @uncompiled
    def draw(self, mask: Bool[Tensor, "b f"]) -> Draws:
        """What to mask and to drop of clips with these real frames. It depends on the seed and the step alone."""
        config, generator = self.config, generator_of_step(self.config.seed, self.steps)
        audio, video = config.audio_mask_probability, config.video_mask_probability
        audio_masked = mask_spans(mask, probability=audio, length=config.audio_mask_length, generator=generator)
        video_masked = mask_spans(mask, probability=video, length=config.video_mask_length, generator=generator)
        kept = modality_dropout(mask, generator=generator, both=config.both_probability, audio=config.audio_probability)
        return Draws(audio_masked, video_masked, imposters(video_masked, mask, generator=generator), *kept)

    def forward(
        self,
        video: Float[Tensor, "b f 3 height width"] | None,
        mel: Float[Tensor, "b mels s"] | None,
        video_mask: Bool[Tensor, "b f"] | None = None,
        mel_mask: Bool[Tensor, "b s"] | None = None,
        draws: Draws | None = None,
    ) -> AVHuBERTOutput:
        real = self.frame_mask(video, mel, video_mask, mel_mask)
        missing = torch.zeros(*real.shape, self.config.width, device=real.device)
        audio = missing if mel is None else self.audio_features(mel, mel_mask, real, draws)  # (b, f, d)
        visual = missing if video is None else self.video_features(video, real, draws)  # (b, f, d)
        x = self.dropout(self.fusion(self.fusion_norm(torch.cat([audio, visual], dim=-1))))  # (b, f, 2 d) → (b, f, d)
        tokens = self.context(x, real)
        cluster_logits = None
        if self.projection is not None:
            frames = F.normalize(self.projection(tokens), dim=-1)
            cluster_logits = frames @ F.normalize(self.cluster_embedding, dim=-1).T / self.config.temperature
        logits = self.ctc_head(tokens) if self.ctc_head is not None else None
        return AVHuBERTOutput(tokens, real, cluster_logits, logits)

    def audio_features(
        self,
        mel: Float[Tensor, "b mels s"],
        mel_mask: Bool[Tensor, "b s"] | None,
        real: Bool[Tensor, "b f"],
        draws: Draws | None,
    ) -> Float[Tensor, "b f d"]:
        """The sound of each frame of the video: masked spans become one learned vector, dropped clips 0."""
        mel = mel if mel_mask is None else mel.masked_fill(~mel_mask[:, None], 0)
        mel = mel[:, :, : real.shape[1] * self.config.stack]
        x = rearrange(mel, "b mels (f stack) -> b f (stack mels)", stack=self.config.stack)
        x = self.audio_projection(mask_frames(x, None if draws is None else draws.audio_masked, self.mask_embedding))
        return x if draws is None else x * draws.audio_kept[:, None, None]

    def video_features(
        self, video: Float[Tensor, "b f 3 height width"], real: Bool[Tensor, "b f"], draws: Draws | None
    ) -> Float[Tensor, "b f d"]:
        """The picture of each frame: masked ones show imposters, dropped clips become 0."""
        red, green, blue = video.unbind(2)
        grey = GREY[0] * red + GREY[1] * green + GREY[2] * blue  # (b, f, height, width)
        if draws is not None:
            grey = grey[torch.arange(len(grey), device=grey.device)[:, None], draws.imposter]
        x = self.video_projection(self.lip_encoder(grey, real))
        return x if draws is None else x * draws.video_kept[:, None, None]

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``ctc`` where the batch has ``tokens`` and the model a head for them; else ``cluster``.

        ``cluster`` (b, f) is the number of each frame, -100 in padding; it counts where sound or picture is masked. The
        fields of :class:`Draws` may be in the batch; those that are missing are drawn for the step. Modalities are
        dropped in training only. Raises ``ValueError`` without ``video`` and ``mel``, for an empty batch, where nothing
        can be learned from it, and for clusters of another shape. Source: equation 4.
        """
        streams = [batch.get(name) for name in ("video", "mel", "video_mask", "mel_mask")]
        real = self.frame_mask(*streams)
        if self.ctc_head is not None and "tokens" in batch:
            output = self(*streams)
            return {"ctc": self.ctc_head.loss(output.logits, output.mask, batch["tokens"], batch.get("mask"))}
        if self.projection is None or "cluster" not in batch:
            raise ValueError(
                "Nothing to learn: this AV-HuBERT needs cluster in the batch and clusters, or tokens and vocab_size."
            )
        if (got := batch["cluster"].shape) != real.shape:
            raise ValueError(f"These clips have {tuple(real.shape)} frames, and cluster numbers {tuple(got)}.")
        drawn = self.draw(real)
        if not self.training:
            kept = torch.ones_like(drawn.audio_kept)
            drawn = drawn._replace(audio_kept=kept, video_kept=kept)
        draws = drawn._replace(**{name: batch[name] for name in drawn._fields if name in batch})
        logits = self(*streams, draws).cluster_logits
        masked = draws.audio_masked, draws.video_masked
        return {"cluster": masked_multimodal_cluster(logits, batch["cluster"], *masked, real)}

    def frame_mask(
        self, video: Tensor | None, mel: Tensor | None, video_mask: Tensor | None, mel_mask: Tensor | None
    ) -> Bool[Tensor, "b f"]:
        """Which frames of the video are real."""
        stack = self.config.stack
        if video is not None:
            (b, frames), device = video.shape[:2], video.device
        elif mel is not None:
            b, frames, device = len(mel), mel.shape[2] // stack, mel.device
        else:
            raise ValueError("AV-HuBERT needs video (b, f, 3, h, w), mel (b, mels, s) or both; both are missing.")
        if mel is not None and mel.shape[1] != self.config.mels:
            raise ValueError(f"A spectrogram has {self.config.mels} bands here, not {mel.shape[1]}.")
        if not b or not frames:
            raise ValueError("A batch holds at least one clip, and a clip at least one frame.")
        if mel is not None and not (len(mel) == b and 0 <= mel.shape[2] - frames * stack <= stack):
            raise ValueError(
                f"{b} videos of {frames} frames go with {b} spectrograms of {frames * stack} to {(frames + 1) * stack} "
                f"frames; got {len(mel)} of {mel.shape[2]}."
            )
        if video_mask is not None:
            return video_mask
        if mel_mask is not None:
            return mel_mask[:, : frames * stack].unflatten(1, (frames, stack)).any(-1)
        return torch.ones(b, frames, dtype=torch.bool, device=device)


def imposters(
    masked: Bool[Tensor, "b f"], real: Bool[Tensor, "b f"], *, generator: torch.Generator
) -> Int[Tensor, "b f"]:
    r"""Masking by substitution: the frame of the same clip that each frame shows. Unmasked frames show themselves.

    A masked run of l frames in a clip of n is shifted as a whole, around the end of the clip, by l to n - l frames, so
    that none of it shows itself. Where it is longer than half of the clip, it is shifted by 1 to n - 1 frames.
    Source: section 3.2, masking by substitution.
    """
    position = torch.arange(masked.shape[1], device=masked.device).expand_as(masked)  # (b, f)
    begins = masked & ~F.pad(masked, (1, 0))[:, :-1]  # where a masked run begins
    start = torch.where(begins, position, 0).cummax(1).values  # of the last run, for each frame
    run = begins.int().cumsum(1)  # the number of the last run that begins at this frame or before it
    length = ((run[:, :, None] == run[:, None]) & masked[:, None]).sum(-1)
    frames = real.sum(1, keepdim=True)
    least = torch.where(2 * length <= frames, length, 1)
    chance = torch.rand(masked.shape, generator=generator, device=generator.device).to(masked.device).gather(1, start)
    shift = least + (chance * (frames - 2 * least + 1).clamp(min=1)).long()
    return torch.where(masked & (frames > 1), (position + shift) % frames.clamp(min=1), position)
