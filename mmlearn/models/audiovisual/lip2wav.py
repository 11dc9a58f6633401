"""A regressor like Lip2Wav: from a silent video of lips to the spectrogram of their speech, frame after frame.

Paper: Prajwal et al. 2020, "Learning Individual Speaking Styles for Accurate Lip to Speech Synthesis". Official code:
https://github.com/Rudrabha/Lip2Wav.

Deviations: ``tiny`` is ours. Transformer blocks stand where the paper has Tacotron 2's recurrent layers: for the
bidirectional layer that ends the encoder, and for the decoder. The decoder's attention then needs no memory of its
earlier positions, so all steps of a known spectrogram are computed at once (Li et al. 2019, "Neural Speech Synthesis
with Transformer Network"). ``base`` has the widths of the official code's convolutions, pre-net and post-net, and that
paper's transformer; in the code two residual convolutions follow the first halving as well, a last convolution of 3 × 3
takes the rest of the picture, a speaker's vector joins the encoder's output, a linear layer follows the post-net, and
convolutions and norms have TensorFlow's padding and ε of 0.001. Both losses are L1, in the code the squared distance,
with an L1 of the decoder's spectrogram and a penalty on weights in addition. Both streams have positions in one unit of
time, and keys start as queries (Ping et al. 2018, Deep Voice 3), so that steps attend to their own time early. A
spectrogram is as long as its video, and there is no stop token. The feature map after the last halving is averaged,
where the paper has a 3 × 3 convolution, so pictures may have any size. The pre-net drops out in training only, where
Tacotron 2's always does. All of training is teacher-forced, in the paper less and less of it. There is no vocoder. Not
compared with released code: a transformer stands for the recurrent layers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.layers import Transformer, TransformerConfig, sinusoidal_positions, small_linear
from mmlearn.models.audio.checks import real_frames
from mmlearn.models.audio.mel import MaskedBatchNorm
from mmlearn.objectives.reconstruction import masked_l1


@dataclass(frozen=True)
class Lip2WavConfig(TransformerConfig):
    width: int = 512
    depth: int = 6  # of the decoder
    num_heads: int = 8
    dropout: float = 0.1
    encoder_depth: int = 6
    mels: int = 80  # bands of the spectrogram
    mel_per_frame: float = 8 / 3  # frames of the spectrogram for each frame of the video: 80 and 30 a second
    frames_per_step: int = 2  # of the spectrogram, that one step of the decoder predicts
    video_widths: tuple[int, ...] = (24, 48, 96, 192, 384)  # each at half the size of the one before
    first_kernel: int = 5
    blocks: int = 2  # residual convolutions at each size but the first
    prenet_width: int = 256
    prenet_dropout: float = 0.5  # also of the post-net
    postnet_width: int = 512
    postnet_depth: int = 5

    PRESETS = {
        "tiny": dict(mels=40, mel_per_frame=4.0, frames_per_step=4, video_widths=(8, 16, 32), first_kernel=3, blocks=0)
        | dict(width=64, encoder_depth=1, depth=2, num_heads=2, dropout=0.0)
        | dict(prenet_width=32, postnet_width=32, postnet_depth=3),
        "base": dict(),
    }


class Lip2WavOutput(NamedTuple):
    before: Float[Tensor, "b mels s"]  # the decoder's, before the post-net
    mel: Float[Tensor, "b mels s"]  # after the post-net


class ConvBlock(nn.Module):
    """A convolution over time, or over time, rows and columns, with batch norm of the real frames. Padding becomes 0.

    With ``residual`` the input is added before the activation.
    """

    def __init__(self, convolution: nn.Module, activation: nn.Module, dropout: float = 0.0, residual: bool = False):
        super().__init__()
        self.convolution, self.activation, self.residual = convolution, activation, residual
        self.norm = MaskedBatchNorm(convolution.out_channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b c f ..."], mask: Bool[Tensor, "b f"]) -> Float[Tensor, "b d f ..."]:
        y = self.convolution(x).movedim(1, -1)  # (b, f, …, d)
        real = mask.view(*mask.shape, *[1] * (y.ndim - 3))  # (b, f, …)
        y = self.norm(y, real.expand(y.shape[:-1])).movedim(-1, 1)  # (b, d, f, …)
        return self.dropout(self.activation(y + x if self.residual else y)) * real[:, None]


class FaceEncoder(nn.Module):
    """One vector for each frame of a video of lips, by convolutions over space and time that halve space alone.

    Source: section 4.2.1 and the official code.
    """

    def __init__(self, widths: Sequence[int], first_kernel: int, blocks: int, width: int):
        super().__init__()
        layers, in_channels = [], 3
        for channels in widths:
            size = first_kernel if in_channels == 3 else 3
            halving = nn.Conv3d(in_channels, channels, size, stride=(1, 2, 2), padding=size // 2)
            layers.append(ConvBlock(halving, nn.ReLU()))
            for _ in range(blocks if in_channels != 3 else 0):
                same_size = nn.Conv3d(channels, channels, 3, padding=1)
                layers.append(ConvBlock(same_size, nn.ReLU(), residual=True))
            in_channels = channels
        self.layers = nn.ModuleList(layers)
        self.projection = nn.Linear(in_channels, width)

    def forward(self, video: Float[Tensor, "b f 3 height width"], mask: Bool[Tensor, "b f"]) -> Float[Tensor, "b f d"]:
        x = rearrange(video, "b f c row column -> b c f row column").masked_fill(~mask[:, None, :, None, None], 0)
        for layer in self.layers:
            x = layer(x, mask)  # (b, c, f, row, column)
        return self.projection(rearrange(x.mean((3, 4)), "b c f -> b f c"))


class PostNet(nn.Module):
    """A correction that is added to the whole spectrogram. Source: Shen et al. 2018 (Tacotron 2), section 2.2."""

    def __init__(self, mels: int, width: int, depth: int, dropout: float):
        super().__init__()
        widths = [mels, *[width] * (depth - 1), mels]
        convolutions = [nn.Conv1d(*channels, 5, padding=2) for channels in pairwise(widths)]
        activations = [*[nn.Tanh()] * (depth - 1), nn.Identity()]
        self.layers = nn.ModuleList(ConvBlock(*pair, dropout) for pair in zip(convolutions, activations))

    def forward(self, mel: Float[Tensor, "b mels s"], mask: Bool[Tensor, "b s"]) -> Float[Tensor, "b mels s"]:
        x = mel * mask[:, None]
        for layer in self.layers:
            x = layer(x, mask)
        return x


class Lip2Wav(nn.Module):
    r"""An encoder of a video, and a causal decoder that attends to it and predicts r frames of log-mel a step.

    .. math:: \hat y_{j} = W\, \mathrm{Decoder}(\mathrm{PreNet}(y_{<j});\, \mathrm{Encoder}(x)), \quad
       \hat y' = \hat y + \mathrm{PostNet}(\hat y)

    ``mel`` is the true past, of which step j reads the last frame of each step before j. ``video_mask`` and
    ``mel_mask`` are True where a frame is real. Raises ``ValueError`` where videos and spectrograms are not equally
    many, where a video has no frame, and as :func:`~mmlearn.models.audio.checks.real_frames` does. Source: section 4.2;
    Shen et al. 2018 (Tacotron 2), section 2.2.
    """

    def __init__(self, config: Lip2WavConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.face_encoder = FaceEncoder(config.video_widths, config.first_kernel, config.blocks, width)
        self.encoder = Transformer(replace(config, depth=config.encoder_depth))
        self.encoder_norm = nn.LayerNorm(width)
        layers = []
        for inputs in (config.mels, config.prenet_width):
            layers += [nn.Linear(inputs, config.prenet_width), nn.ReLU(), nn.Dropout(config.prenet_dropout)]
        self.prenet = nn.Sequential(*layers, nn.Linear(config.prenet_width, width))
        self.decoder = Transformer(config, context_width=width)
        for block in self.decoder.blocks:
            # Equal positions in time then attend to each other from the start (Ping et al. 2018, section 3.5).
            block.cross_attention.key.load_state_dict(block.cross_attention.query.state_dict())
        self.decoder_norm = nn.LayerNorm(width)
        self.output = small_linear(width, config.frames_per_step * config.mels)
        self.postnet = PostNet(config.mels, config.postnet_width, config.postnet_depth, config.prenet_dropout)
        nn.init.zeros_(self.postnet.layers[-1].norm.weight)  # at first it adds nothing

    def forward(
        self,
        video: Float[Tensor, "b f 3 height width"],
        mel: Float[Tensor, "b mels s"],
        video_mask: Bool[Tensor, "b f"] | None = None,
        mel_mask: Bool[Tensor, "b s"] | None = None,
    ) -> Lip2WavOutput:
        if not 1 <= len(video) == len(mel):
            raise ValueError(f"Each video has its spectrogram, and at least one; got {len(video)} and {len(mel)}.")
        real = real_frames(mel, mel_mask, self.config.mels)
        context = self.encode(video, video_mask)  # (b, f, d)
        before = self.decode(context, video_mask, mel.masked_fill(~real[:, None], 0))  # (b, mels, s)
        return Lip2WavOutput(before, before + self.postnet(before, real))

    def encode(
        self, video: Float[Tensor, "b f 3 height width"], video_mask: Bool[Tensor, "b f"] | None = None
    ) -> Float[Tensor, "b f d"]:
        """The context of the decoder: each frame, with the position of the step that it belongs to."""
        frames = video.shape[1]
        if not frames:
            raise ValueError("A video has at least one frame; this one has none.")
        real = torch.ones(video.shape[:2], dtype=torch.bool, device=video.device) if video_mask is None else video_mask
        # Positions count steps of the decoder, so that both streams share one unit of time.
        steps = [math.floor(i * self.config.mel_per_frame / self.config.frames_per_step) for i in range(frames)]
        positions = sinusoidal_positions(steps[-1] + 1, self.config.width)[steps].to(video)  # (f, d)
        x = self.face_encoder(video, real) + positions
        return self.encoder_norm(self.encoder(x, video_mask)) + positions

    def decode(
        self, context: Float[Tensor, "b f d"], context_mask: Bool[Tensor, "b f"] | None, mel: Float[Tensor, "b mels s"]
    ) -> Float[Tensor, "b mels s"]:
        """All steps at once. Step j reads the last frame of each step before it."""
        frames, r = mel.shape[2], self.config.frames_per_step
        past = F.pad(mel, (1, -1))[:, :, ::r]  # (b, mels, steps): the first step reads 0
        x = self.prenet(past.mT) + sinusoidal_positions(-(-frames // r), self.config.width, mel.device).to(mel)
        x = self.decoder(x, causal=True, context=context, context_mask=context_mask)
        mel = rearrange(self.output(self.decoder_norm(x)), "b step (r mels) -> b mels (step r)", r=r)
        return mel[:, :, :frames]

    @torch.no_grad()
    def generate(
        self, video: Float[Tensor, "b f 3 height width"], video_mask: Bool[Tensor, "b f"] | None = None
    ) -> Float[Tensor, "b mels s"]:
        """The spectrogram of a silent video, as long as the padded video, generated step by step.

        After the end of a shorter video the spectrogram is 0. In training mode the pre-net drops out, so call ``eval``
        first.
        """
        context, r = self.encode(video, video_mask), self.config.frames_per_step
        frames = round(video.shape[1] * self.config.mel_per_frame)
        mel = torch.zeros(len(video), self.config.mels, 0, device=video.device)
        while mel.shape[2] < frames:
            predicted = self.decode(context, video_mask, F.pad(mel, (0, r)))
            mel = torch.cat([mel, predicted[:, :, -r:]], dim=2)
        mel = mel[:, :, :frames]
        mask = torch.ones_like(mel[:, 0], dtype=torch.bool)
        if video_mask is not None:
            frame = (torch.arange(frames, device=video.device) / self.config.mel_per_frame).long()
            mask = video_mask[:, frame.clamp(max=video.shape[1] - 1)]
        return (mel + self.postnet(mel, mask)) * mask[:, None]

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``before`` and ``mel``: the L1 distance to the true spectrogram, before and after the post-net.

        Raises ``ValueError`` where ``video`` or ``mel`` is missing, and for an empty batch.
        Source: section 4.3; Shen et al. 2018 (Tacotron 2), section 2.2, for the sum of both.
        """
        if missing := {"video", "mel"} - set(batch):
            raise ValueError(f"Lip2Wav learns mel from video; this batch has no {sorted(missing)[0]}.")
        mel, mask = batch["mel"], batch.get("mel_mask")
        output = self(batch["video"], mel, batch.get("video_mask"), mask)
        real = real_frames(mel, mask, self.config.mels)
        return {name: masked_l1(getattr(output, name).mT, mel.mT, real) for name in ("before", "mel")}
