"""Video as tokens: patches over a few frames and pixels (tubelets).

Source: Akbari et al. 2021 (VATT), section 3.1.
"""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn


class VideoTokens(nn.Module):
    r"""Cut a video into patches of frames and pixels, project each, and add positions in time, height and width.

    .. math:: z_{ijk} = W_{vp}\, x_{ijk} + e^\mathrm{temporal}_i + e^\mathrm{vertical}_j + e^\mathrm{horizontal}_k

    A last patch that is not full is filled with zeros. Frames where ``video_mask`` (b, f) is False become zeros as
    well. A patch is real if any of its frames is. Returns (b, n, d) and (b, n): first all patches of the earliest
    frames, row by row. Raises ``ValueError`` for videos that are not float (b, f, 3, height, width), or larger than
    ``size``. Source: Akbari et al. 2021 (VATT), section 3.1 and equation 1.
    """

    def __init__(self, size: tuple[int, ...], patch: tuple[int, ...], width: int):
        super().__init__()
        self.size, self.patch = size, patch
        self.patches = nn.Linear(3 * patch[0] * patch[1] * patch[2], width)
        self.times, self.rows, self.columns = (
            nn.Parameter(torch.randn(-(-length // side), width) * width**-0.5) for length, side in zip(size, patch)
        )

    def forward(
        self, video: Float[Tensor, "b f 3 height width"], video_mask: Bool[Tensor, "b f"] | None = None
    ) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
        self._check(video)
        if video_mask is None:
            video_mask = torch.ones(video.shape[:2], dtype=torch.bool, device=video.device)
        else:
            video = video.masked_fill(~video_mask[:, :, None, None, None], 0)
        t, y, x = self.patch
        missing = -video.shape[1] % t, -video.shape[3] % y, -video.shape[4] % x
        video = F.pad(video, (0, missing[2], 0, missing[1], 0, 0, 0, missing[0]))
        patches = rearrange(video, "b (f t) c (row y) (column x) -> b f row column (t c y x)", t=t, y=y, x=x)
        _, f, row, column, _ = patches.shape
        tokens = self.patches(patches) + self.times[:f, None, None] + self.rows[:row, None] + self.columns[:column]
        real = F.pad(video_mask, (0, missing[0])).unflatten(1, (f, t)).any(-1)  # (b, f)
        # (b, f, row, column, d) → (b, n, d)
        return tokens.flatten(1, 3), repeat(real, "b f -> b (f row column)", row=row, column=column)

    def _check(self, video: Tensor) -> None:
        if video.ndim != 5 or video.shape[2] != 3 or not video.is_floating_point():
            got = f"{video.dtype} {tuple(video.shape)}"
            raise ValueError(f"Video is a float tensor (b, frames, 3, height, width); got {got}.")
        size = (video.shape[1], *video.shape[3:])
        if not min(size) or any(part > most for part, most in zip(size, self.size)):
            most, got = (" × ".join(map(str, parts)) for parts in (self.size, size))
            raise ValueError(f"A video has from 1 to {most} frames and pixels here, got {got}; cut it or shrink it.")
