"""Log-mels on one scale and of one length: a batch norm that leaves out padding, and clips that are stretched."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

EPSILON = 1e-5  # added to a variance before its root
MOMENTUM = 0.1  # how far running statistics move towards those of a batch


class MaskedBatchNorm(nn.Module):
    r"""Batch norm over the real rows alone: padding counts in no mean and no variance.

    .. math:: y_i = \gamma\, \frac{x_i - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta, \quad
       \mu = \frac{1}{|m|} \sum_{i \in m} x_i, \quad \sigma^2 = \frac{1}{|m|} \sum_{i \in m} (x_i - \mu)^2

    In evaluation μ and σ² are their running means over training. Padding becomes β.
    Source: Ioffe & Szegedy 2015, algorithm 1.
    """

    def __init__(self, width: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Float[Tensor, "*n d"], real: Bool[Tensor, "*n"]) -> Float[Tensor, "*n d"]:
        return torch.addcmul(self.bias, self.standardise(x, real), self.weight)

    def standardise(self, x: Float[Tensor, "*n d"], real: Bool[Tensor, "*n"]) -> Float[Tensor, "*n d"]:
        """The real rows at mean 0 and variance 1, and 0 elsewhere."""
        padding = ~real[..., None]
        x = x.float().masked_fill(padding, 0)  # in whole precision, because many rows are summed
        mean, variance = self.running_mean, self.running_var
        if self.training:
            rows, count = tuple(range(x.ndim - 1)), real.sum().clamp(min=1)
            mean = x.sum(rows) / count
            variance = (x - mean).square().masked_fill(padding, 0).sum(rows) / count
            self.update_running_statistics(mean, variance, count)
        return ((x - mean) * (variance + EPSILON).rsqrt()).masked_fill(padding, 0)

    @torch.no_grad()
    def update_running_statistics(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Moving averages, with the unbiased variance; a single row has none, and changes nothing."""
        share = MOMENTUM * (count > 1)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), share)


class MelNorm(MaskedBatchNorm):
    r"""Batch norm of each band over the real frames of all clips, each of which is then stretched to ``frames``.

    .. math:: y = \gamma\, \mathrm{stretch}\!\left(\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}\right) + \beta

    ``mel_mask`` is True from the first frame of a sound to its last. Returns (b, mels, frames). A clip without a real
    frame becomes the mean. Source: Ioffe & Szegedy 2015; the official code of CLAP for the stretching.
    """

    def __init__(self, mels: int, frames: int):
        super().__init__(mels)
        self.frames = frames

    def forward(self, mel: Float[Tensor, "b mels s"], mel_mask: Bool[Tensor, "b s"]) -> Float[Tensor, "b mels frames"]:
        x = stretch(self.standardise(mel.mT, mel_mask).mT, mel_mask.sum(1), self.frames)  # (b, mels, frames)
        return torch.addcmul(self.bias[:, None], x, self.weight[:, None])


def stretch(mel: Float[Tensor, "b mels s"], length: Int[Tensor, "b"], frames: int) -> Float[Tensor, "b mels frames"]:
    r"""The first ``length`` frames of each clip as ``frames`` of them, by cubic interpolation between four neighbours.

    .. math:: y_j = \sum_{k=-1}^{2} w(t_j - \lfloor t_j \rfloor - k)\; x_{\lfloor t_j \rfloor + k}, \quad
       t_j = j\, \frac{\mathrm{length} - 1}{\mathrm{frames} - 1}

    Beyond its ends a clip repeats its first or last frame. The same as PyTorch's bicubic interpolation with
    ``align_corners``, for clips of different lengths at once. Source: Keys 1981, "Cubic Convolution Interpolation for
    Digital Image Processing", section III.
    """
    last = (length - 1).clamp(min=0)[:, None]  # (b, 1)
    position = torch.arange(frames, device=mel.device) * (last / max(frames - 1, 1))  # t, (b, frames)
    below, y = position.floor(), mel.new_zeros(())
    for k in (-1, 0, 1, 2):
        neighbour = (below.long() + k).clamp(min=0).minimum(last)[:, None]  # (b, 1, frames)
        y = y + _cubic(position - below - k)[:, None] * mel.take_along_dim(neighbour, dim=2)
    return y


def _cubic(distance: Float[Tensor, "b frames"], a: float = -0.75) -> Float[Tensor, "b frames"]:
    """The weight of a neighbour at this distance, at most 2."""
    d = distance.abs()
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return torch.where(d <= 1, near, far)
