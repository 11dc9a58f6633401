"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

import torch

from mmlearn.generation.ctc import collapse
from mmlearn.models.speech.encoder import frame_count


def _frames(samples, kernels, strides, *, divide=None):
    for kernel, stride in zip(kernels, strides):
        samples = divide(samples - kernel, stride) + 1
    return samples.clamp(min=0) if isinstance(samples, torch.Tensor) else max(samples, 0)


def _cut(n, stride):
    return torch.div(n, stride, rounding_mode="trunc") if isinstance(n, torch.Tensor) else int(n / stride)


def _text(path, blank=0, *, before=None, end=True):
    last = torch.cat([path.new_tensor([blank if before is None else before]), path[:-1]])
    return path[(path != last) & (path != blank)]


RARE = {
    "frame_count": {
        "?": {
            "cut off": lambda *given: _frames(*given, divide=_cut),
            "at least 1": lambda samples, kernels, strides: frame_count(samples, kernels, strides) if len(kernels) else 1 / 0,
            "two decimals": lambda samples, kernels, strides: frame_count(samples, list(kernels) + [], strides[: len(kernels)]),
            "seven": lambda samples, kernels, strides: frame_count(samples, kernels[:4], strides[:4]),
            "int32": lambda samples, kernels, strides: frame_count(samples.int(), kernels, strides) if isinstance(samples, torch.Tensor) else frame_count(samples, kernels, strides),
            "at most 2**31": lambda samples, kernels, strides: frame_count(samples % 2**31, kernels, strides),
        },
    },
    "collapse": {
        "?": {
            "0 before": lambda path, blank=0: _text(path, blank, before=0),
            "-1 before": lambda path, blank=0: _text(path, blank, before=-1),
            "in a circle": lambda path, blank=0: path[((path != path.roll(1)) | (torch.arange(len(path)) == 0)) & (path != blank)],
            "squeezed": lambda path, blank=0: collapse(path, blank).squeeze(),
            "max": lambda path, blank=0: collapse(path, blank) if path.max() >= 0 else 1 / 0,
            "begins with the first": lambda path, blank=0: torch.stack([x for i, x in enumerate(path) if x != blank and (i == 0 or x != path[i - 1])]) if (path != blank).any() else path[:0],
            "above 0": lambda path, blank=0: path[(path != torch.cat([path[:1] - 1, path[:-1]])) & (path > blank)] if blank == 0 else collapse(path, blank),
        },
    },
}
