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


def _text(path, blank=0, *, before=0):
    last = torch.cat([path.new_tensor([before]), path[:-1]])
    return path[(path != last) & (path != blank)]


RARE = {
    "frame_count": {
        "A clip that is shorter than a window must have": {"cut off": lambda *given: _frames(*given, divide=_cut)},
        "Seven convolutions: All of them must be counted": {
            "four": lambda samples, kernels, strides: frame_count(samples, kernels[:4], strides[:4])
        },
        "A number just below the window: It must give": {
            "numbers cut off": lambda samples, kernels, strides: (
                frame_count(samples, kernels, strides)
                if isinstance(samples, torch.Tensor)
                else _frames(samples, kernels, strides, divide=_cut)
            )
        },
        "It must be a whole number; this is a float": {
            "a float": lambda samples, kernels, strides: (
                frame_count(samples, kernels, strides)
                if isinstance(samples, torch.Tensor)
                else float(frame_count(samples, kernels, strides))
            )
        },
    },
    "collapse": {
        "is a token then, at the beginning too": {"0 before": lambda path, blank=0: _text(path, blank, before=0)},
        "It must return a text, (t,)": {"squeezed": lambda path, blank=0: collapse(path, blank).squeeze()},
        "Other tokens are those that are not the blank, not those above it": {
            "above the blank": lambda path, blank=0: (
                path.unique_consecutive()[path.unique_consecutive() > blank] if blank > 20 else collapse(path, blank)
            )
        },
        "is out of bounds for dimension": {
            "the first is there": lambda path, blank=0: collapse(path, blank) if path[0] >= 0 else path
        },
    },
}
