"""What systems that hear ask of a log-mel, and how they bring it to one scale and length."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


def check_mel(
    mel: Float[Tensor, "..."], mel_mask: Bool[Tensor, "..."] | None, mels: int, frames: int | None = None
) -> None:
    """Raises ``ValueError`` for a log-mel that is not float (b, mels, s), has no frame or more than ``frames``.

    Also for a ``mel_mask`` that is not boolean (b, s), or not True from the first frame of a sound to its last.
    """
    if mel.ndim != 3 or mel.shape[1] != mels or not mel.is_floating_point():
        raise ValueError(f"A log-mel is a float tensor (b, {mels}, s); got {mel.dtype} {tuple(mel.shape)}.")
    if not mel.shape[2]:
        raise ValueError("A log-mel has at least one frame; this one has none.")
    if frames is not None and mel.shape[2] > frames:
        raise ValueError(f"{mel.shape[2]} frames are more than the {frames} of this model; cut the sound into pieces.")
    if mel_mask is None:
        return
    if mel_mask.dtype != torch.bool or mel_mask.shape != mel[:, 0].shape:
        raise ValueError(
            f"mel_mask is boolean (b, s) like the log-mel, {tuple(mel[:, 0].shape)}; got {mel_mask.dtype} "
            f"{tuple(mel_mask.shape)}."
        )
    if (mel_mask[:, 1:] & ~mel_mask[:, :-1]).any():
        raise ValueError("mel_mask is True from the first frame of a sound to its last; pad behind.")


class MelNorm(nn.Module):
    r"""Batch norm of each band over the real frames of all clips, each of which is stretched to ``frames``.

    .. math:: y = \gamma\, \mathrm{stretch}\!\left(\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}\right) + \beta

    Returns (b, mels, frames); a clip without real frames is as silent as the mean. PyTorch's batch norm also counts
    batches, which neither training nor a checkpoint needs.
    Source: Ioffe & Szegedy 2015; the official code for the bicubic stretching.
    """

    def __init__(self, mels: int, frames: int):
        super().__init__()
        self.frames = frames
        self.weight, self.bias = nn.Parameter(torch.ones(mels)), nn.Parameter(torch.zeros(mels))
        self.register_buffer("running_mean", torch.zeros(mels))
        self.register_buffer("running_var", torch.ones(mels))

    def forward(
        self, mel: Float[Tensor, "b mels s"], mel_mask: Bool[Tensor, "b s"] | None = None
    ) -> Float[Tensor, "b mels frames"]:
        if mel_mask is None or not len(mel):
            x = self._stretch(self._standard(mel))
        else:
            clips = self._standard(mel.mT[mel_mask]).split(mel_mask.sum(1).tolist())  # each (its frames, mels)
            x = torch.cat([self._stretch(clip.T[None]) for clip in clips])
        # Last, which gives the same, for stretching takes means; and so nothing before it needs a gradient.
        return torch.addcmul(self.bias[:, None], x, self.weight[:, None])

    def _standard(self, x: Tensor) -> Tensor:
        """Over all axes but the second; one number a band has no deviation to learn from."""
        training = self.training and x.numel() > x.shape[1]
        return F.batch_norm(x, self.running_mean, self.running_var, training=training)

    def _stretch(self, clips: Float[Tensor, "b mels s"]) -> Float[Tensor, "b mels frames"]:
        b, mels, s = clips.shape
        if not b * s:
            return clips.new_zeros(b, mels, self.frames)
        if s == self.frames:
            return clips
        return F.interpolate(clips[:, None], (mels, self.frames), mode="bicubic", align_corners=True)[:, 0]
