"""Sound of Pixels: solos are mixed, and separated again by their videos, so that every pixel gets its own sound.

Paper: Zhao et al. 2018, "The Sound of Pixels". Official code: https://github.com/hangzhaomit/Sound-of-Pixels.

Deviations: ``tiny`` is ours. The published sizes are those of the official script, with the K = 16 of the paper (the
script has 32). Weights start at random, where the paper's video network starts from ImageNet. Sound has 16 kHz here, in
the paper 11 kHz. A mixture is the sum of its solos, in the official code their mean. A bin belongs to its loudest solo,
as in the paper; in the code it belongs to each solo that is louder than half of the mixture. Convolutions start by He's
rule and only the last of the audio network near 0; in the code all of the audio network's start near 0, with a
deviation of 0.001, the weights of its batch norms around 1, with 0.02, and the video network's head as PyTorch has it.
Rows that follow each other in a batch are mixed, so a shuffled batch mixes at random. Shares of ratio masks are of the
sum of magnitudes, so that they sum to 1 (see :mod:`mmlearn.objectives.separation`). Losses are weighted means, in the
official code means of weighted terms over bins. Magnitudes move to logarithmic frequencies by linear interpolation
along frequency alone. Clips may have any length: the audio network reads each in as many frames as its real samples
need, so padding changes nothing. In training it reads all clips of a batch at one length, because batch norms need
them together; padding then has no loss.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Complex, Float, Float64, Int
from torch import Tensor, nn

from mmlearn.layers import Config
from mmlearn.models.audio.checks import real_samples
from mmlearn.models.audiovisual.residual import initialise_convolutions, residual_trunk
from mmlearn.objectives.separation import (
    binary_mask_loss,
    binary_masks,
    from_spectrum,
    loudness,
    ratio_mask_loss,
    ratio_masks,
    spectrum,
)

WARP = 21  # on logarithmic frequencies the highest bin is this many times as wide as the lowest
EPSILON = 1e-10  # added to a magnitude before its logarithm


@dataclass(frozen=True)
class SoundOfPixelsConfig(Config):
    fft_size: int = 1022  # samples
    hop: int = 256  # samples
    bins: int = 256  # of logarithmic frequency; a power of two for each level of the audio network at least
    channels: int = 16  # K, of a pixel and of a sound
    video_widths: tuple[int, ...] = (64, 128, 256, 512)  # of ResNet-18's stages
    blocks: int = 2  # of each stage
    frames: int = 3  # of a clip, for the video network
    audio_widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512, 512)  # of the levels of the audio network
    masks: str = "binary"  # or "ratio"
    sources: int = 2  # rows of a batch that are mixed

    PRESETS = {
        "tiny": dict(fft_size=512, bins=128, channels=8, blocks=1)
        | dict(video_widths=(8, 16, 16), audio_widths=(8, 16, 32, 32)),
        "resnet18-unet7": dict(),
    }


class SoundOfPixelsOutput(NamedTuple):
    logits: Float[Tensor, "b bins s"]  # of each video's mask, on logarithmic frequencies
    pixels: Float[Tensor, "b k rows columns"]  # from 0 to 1
    sounds: Float[Tensor, "b k bins s"]


class VideoNetwork(nn.Module):
    r"""K numbers for each pixel of a small grid, the largest over time, :math:`\sigma(\max_t i_k(x, y, t))`.

    A ResNet whose last stage is dilated instead of halved, and a 3 × 3 convolution to K channels. With four stages the
    grid has a sixteenth of the picture's rows and columns.
    Source: section 3.1 and the official code (``ResnetDilated``).
    """

    def __init__(self, widths: tuple[int, ...], blocks: int, channels: int):
        super().__init__()
        first = nn.Conv2d(3, widths[0], 7, stride=2, padding=3, bias=False)
        self.stem = nn.Sequential(first, nn.BatchNorm2d(widths[0]), nn.ReLU())
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.trunk = residual_trunk(widths, blocks, dilate_last=True)
        self.head = nn.Conv2d(widths[-1], channels, 3, padding=1)
        self.apply(initialise_convolutions)

    def forward(self, video: Float[Tensor, "b f 3 height width"]) -> Float[Tensor, "b k rows columns"]:
        maps = self.head(self.trunk(self.pool(self.stem(video.flatten(0, 1)))))  # (b f, k, rows, columns)
        return maps.unflatten(0, video.shape[:2]).amax(1).sigmoid()


class AudioNetwork(nn.Module):
    """A U-Net from one map of a mixture to K maps of the same size.

    Maps are halved level by level and doubled again, with skip connections. Frames are padded with silence until they
    can be halved as often, and cropped again. Upsampling aligns corners, so a frame depends on the number of frames:
    ``length`` holds the real frames of each row, and in evaluation each row is read at its own length, with 0 after it.
    Source: section 3.1; Ronneberger et al. 2015
    (U-Net); the official code (``unet7``).
    """

    def __init__(self, widths: tuple[int, ...], channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            first, last = level == 0, level == len(widths) - 1
            convolution = nn.Conv2d(widths[level - 1] if level else 1, width, 4, stride=2, padding=1, bias=False)
            down = [convolution] if first else [nn.LeakyReLU(0.2), convolution]
            self.down.append(nn.Sequential(*down, *([] if first or last else [nn.BatchNorm2d(width)])))
            in_channels = width if last else 2 * width
            out_channels = channels if first else widths[level - 1]
            upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            up = [nn.ReLU(), upsample, nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=first)]
            self.up.append(nn.Sequential(*up, *([] if first else [nn.BatchNorm2d(out_channels)])))
        self.apply(initialise_convolutions)
        nn.init.normal_(self.up[0][-1].weight, std=0.001)  # as in the official code: at first every mask is ½

    def forward(
        self, magnitude: Float[Tensor, "b bins s"], length: Int[Tensor, "b"] | None = None
    ) -> Float[Tensor, "b k bins s"]:
        if self.training or length is None or (length == magnitude.shape[-1]).all():
            return self.u_net(magnitude)
        by_length = {n: self.u_net(magnitude[length == n, :, :n]) for n in length.unique().tolist()}
        any_maps = next(iter(by_length.values()))
        maps = any_maps.new_zeros(len(magnitude), any_maps.shape[1], *magnitude.shape[1:])  # (b, k, bins, s)
        for n, of_length in by_length.items():
            maps[length == n, :, :, :n] = of_length
        return maps

    def u_net(self, magnitude: Float[Tensor, "b bins s"]) -> Float[Tensor, "b k bins s"]:
        frames = magnitude.shape[-1]
        magnitude = F.pad(magnitude, (0, -frames % 2 ** len(self.down)))
        exact = torch.promote_types(magnitude.dtype, torch.float32)  # half precision has no number as small as EPSILON
        x = self.norm(torch.log(magnitude[:, None].to(exact) + EPSILON))  # (b, 1, bins, s)
        skips = []
        for down in self.down:
            x = down(x)  # half as many bins and frames
            skips.append(x)
        x = self.up[-1](x)
        for up, skip in zip(reversed(self.up[:-1]), reversed(skips[:-1])):
            x = up(torch.cat([skip, x], dim=1))
        return x[..., :frames]


class SoundOfPixels(nn.Module):
    r"""The K channels of a video, or of one of its pixels, weigh the K maps of a mixture to select its sound.

    .. math:: \hat M(u, v) = \sigma\Big(\sum_k \alpha_k\, i_k\, s_k(u, v) + \beta\Big)

    ``i_k`` is a pixel's channel, or its largest over all pixels. Each waveform belongs to one video or, as a mixture,
    to several that follow each other. ``video_mask`` is True from the first real frame to the last, ``waveform_mask``
    where a sample is real. The video network reads frames at equal distances. Raises ``ValueError`` for unknown masks,
    for bins that cannot be halved often enough, and where videos cannot be divided among the waveforms.
    Source: sections 3.1 and 3.2.
    """

    def __init__(self, config: SoundOfPixelsConfig):
        super().__init__()
        if config.masks not in ("binary", "ratio"):
            raise ValueError(f"masks is 'binary' or 'ratio', not {config.masks!r}.")
        levels, bins = len(config.audio_widths), config.bins
        if bins % 2**levels:
            rule = f"{levels} levels halve the bins as often: bins must be a multiple of {2**levels}"
            raise ValueError(f"{rule}, got {bins}.")
        self.config = config
        self.video_network = VideoNetwork(config.video_widths, config.blocks, config.channels)
        self.audio_network = AudioNetwork(config.audio_widths, config.channels)
        self.scale = nn.Parameter(torch.ones(config.channels))
        self.bias = nn.Parameter(torch.zeros(()))
        to_bins, to_frequencies = log_frequency(config.fft_size // 2 + 1, config.bins)
        self.register_buffer("to_bins", to_bins, persistent=False)
        self.register_buffer("to_frequencies", to_frequencies, persistent=False)

    def forward(
        self,
        video: Float[Tensor, "b f 3 height width"],
        waveform: Float[Tensor, "mixtures samples"],
        video_mask: Bool[Tensor, "b f"] | None = None,
        waveform_mask: Bool[Tensor, "mixtures samples"] | None = None,
    ) -> SoundOfPixelsOutput:
        if not len(video) or not len(waveform) or len(video) % len(waveform):
            raise ValueError(f"Each sound has equally many videos; got {len(video)} videos and {len(waveform)} sounds.")
        pixels = self.video_network(self.sample_frames(video, video_mask))  # (b, k, rows, columns)
        length = None if waveform_mask is None else self.frames_of(waveform_mask)
        sounds = self.audio_network(self.magnitude(waveform, waveform_mask), length)  # (mixtures, k, bins, s)
        sounds = sounds.repeat_interleave(len(video) // len(waveform), dim=0)
        logits = einsum(self.scale * pixels.amax((2, 3)), sounds, "b k, b k bins s -> b bins s") + self.bias
        return SoundOfPixelsOutput(logits, pixels, sounds)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``mask``: each ``sources`` rows that follow each other are mixed, and each row should select its own sound.

        ``video`` and ``waveform`` are solos. Raises ``ValueError`` where one is missing, and for a batch that is empty
        or cannot be divided into mixtures. Source: section 3.2.
        """
        if missing := {"video", "waveform"} - set(batch):
            raise ValueError(f"Sound of Pixels learns from videos with sound; this batch has no {sorted(missing)[0]}.")
        video, waveform, n = batch["video"], batch["waveform"], self.config.sources
        if not len(video) or len(video) % n or len(video) != len(waveform):
            rule = f"A batch holds at least one mixture of {n} videos with sound, all whole"
            raise ValueError(f"{rule}; got {len(video)} videos and {len(waveform)} sounds.")
        solos = waveform.masked_fill(~real_samples(waveform, batch.get("waveform_mask")), 0)
        mixture = rearrange(solos, "(b n) samples -> b n samples", n=n).sum(1)  # (b, samples)
        mask = batch.get("waveform_mask")
        mixture_mask = None if mask is None else rearrange(mask, "(b n) samples -> b n samples", n=n).any(1)
        output = self(video, mixture, batch.get("video_mask"), mixture_mask)
        logits = rearrange(output.logits, "(b n) bins s -> b n bins s", n=n)
        magnitude = rearrange(self.magnitude(solos), "(b n) bins s -> b n bins s", n=n)
        weight = loudness(self.magnitude(mixture))  # (b, bins, s)
        if mixture_mask is not None:
            padding = torch.arange(weight.shape[-1], device=weight.device) >= self.frames_of(mixture_mask)[:, None]
            weight = weight.masked_fill(padding[:, None], 0)
        weight = weight[:, None].expand_as(logits)
        if self.config.masks == "binary":
            return {"mask": binary_mask_loss(logits, binary_masks(magnitude), weight)}
        return {"mask": ratio_mask_loss(logits.sigmoid(), ratio_masks(magnitude), weight)}

    @torch.no_grad()
    def separate(
        self,
        video: Float[Tensor, "b f 3 height width"],
        waveform: Float[Tensor, "b samples"],
        video_mask: Bool[Tensor, "b f"] | None = None,
        waveform_mask: Bool[Tensor, "b samples"] | None = None,
    ) -> Float[Tensor, "b samples"]:
        """The part of each mixture that belongs to its video. A binary mask is 1 where σ is at least ½.

        A mixture is repeated for each of its videos.
        """
        logits = self(video, waveform, video_mask, waveform_mask).logits
        return self.apply_masks(logits[:, None], waveform, waveform_mask)[:, 0]

    @torch.no_grad()
    def separate_pixels(
        self,
        video: Float[Tensor, "b f 3 height width"],
        waveform: Float[Tensor, "b samples"],
        video_mask: Bool[Tensor, "b f"] | None = None,
        waveform_mask: Bool[Tensor, "b samples"] | None = None,
    ) -> Float[Tensor, "b rows columns samples"]:
        """The sound of every pixel of the video network's grid. Source: section 3.3 and figure 4."""
        _, pixels, sounds = self(video, waveform, video_mask, waveform_mask)
        channels = rearrange(pixels, "b k row column -> b (row column) k")
        logits = einsum(self.scale * channels, sounds, "b p k, b k bins s -> b p bins s") + self.bias
        return self.apply_masks(logits, waveform, waveform_mask).unflatten(1, pixels.shape[2:])

    def magnitude(
        self, waveform: Float[Tensor, "b samples"], waveform_mask: Bool[Tensor, "b samples"] | None = None
    ) -> Float[Tensor, "b bins s"]:
        """The magnitude of each bin of logarithmic frequency, at each frame."""
        with torch.autocast(waveform.device.type, enabled=False):  # quiet bins underflow in half precision
            return self.to_bins @ self.spectrum(waveform, waveform_mask).abs()

    def frames_of(self, waveform_mask: Bool[Tensor, "b samples"]) -> Int[Tensor, "b"]:
        """The number of frames of each clip's spectrogram up to its last real sample."""
        samples = (waveform_mask * torch.arange(1, waveform_mask.shape[1] + 1, device=waveform_mask.device)).amax(1)
        return 1 + (samples / self.config.hop).ceil().long()

    def apply_masks(
        self, logits: Tensor, waveform: Tensor, waveform_mask: Tensor | None
    ) -> Float[Tensor, "b n samples"]:
        """The waveforms that n masks select from each mixture, whose phase they keep."""
        mask = (logits >= 0).to(logits) if self.config.masks == "binary" else logits.sigmoid()
        masked = (self.to_frequencies @ mask) * self.spectrum(waveform, waveform_mask)[:, None]
        return from_spectrum(masked, self.config.fft_size, self.config.hop, waveform.shape[-1])

    def spectrum(self, waveform: Tensor, waveform_mask: Tensor | None) -> Complex[Tensor, "b frequency s"]:
        """The spectrum of the real samples."""
        waveform = waveform.masked_fill(~real_samples(waveform, waveform_mask), 0)
        return spectrum(waveform, self.config.fft_size, self.config.hop)

    def sample_frames(self, video: Tensor, video_mask: Tensor | None) -> Float[Tensor, "b f 3 height width"]:
        """``frames`` of each video at equal distances, from the first frame to the last real one."""
        b, f = video.shape[:2]
        length = torch.full((b,), f, device=video.device) if video_mask is None else video_mask.sum(1)
        positions = torch.linspace(0, 1, self.config.frames, device=video.device) * (length - 1).clamp(min=0)[:, None]
        return video[torch.arange(b, device=video.device)[:, None], positions.round().long()]


def log_frequency(
    frequencies: int, bins: int
) -> tuple[Float[Tensor, "bins frequencies"], Float[Tensor, "frequencies bins"]]:
    r"""Matrices that interpolate from frequencies at equal distances to bins that grow with frequency, and back.

    .. math:: f(u) = \frac{21^u - 1}{20}, \quad u, f \in [0, 1]

    Rows sum to 1. Source: section 4.2 (log-frequency scale); the official code (``warpgrid``).
    """
    exact = torch.float64  # because a position among hundreds is needed to a millionth
    frequency = (WARP ** torch.linspace(0, 1, bins, dtype=exact) - 1) / (WARP - 1)
    position = (torch.linspace(0, 1, frequencies, dtype=exact) * (WARP - 1)).log1p() / math.log(WARP)
    return _interpolation(frequency * (frequencies - 1), frequencies), _interpolation(position * (bins - 1), bins)


def _interpolation(positions: Float64[Tensor, "m"], count: int) -> Float[Tensor, "m count"]:
    """Row i weighs those two of ``count`` positions between which position i lies."""
    return (1 - (positions[:, None] - torch.arange(count, device=positions.device)).abs()).clamp(min=0).float()
