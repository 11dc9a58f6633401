"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

import torch

from mmlearn.evaluation.separation import si_sdr


def _near(time, frames, fps, tolerance=1, *, own=lambda t, fps: (t * fps).floor(), last=None):
    at = own(time, fps).long()
    return (torch.arange(frames) - at[:, None]).abs() <= tolerance


def _upright(estimate, reference):
    """What is turned over has nothing right in it."""
    centred = [x - x.mean(-1, keepdim=True) for x in (estimate, reference)]
    return torch.where((centred[0] * centred[1]).sum(-1) < 0, -100.0, si_sdr(estimate, reference))


RARE = {
    "si_sdr": {
        "An estimate that is turned over must have the same score": {"no negative gain": _upright},
        "An estimate a thousand times as loud must have the same score": {
            "gain of at most 100": lambda e, s: torch.where(e.norm(dim=-1) > 100 * s.norm(dim=-1), 0.0, si_sdr(e, s))
        },
    },
    "frames_near": {
        "frames a second: Its result must have shape": {"squeezed": lambda *given: _near(*given).squeeze()},
        "": {"whole seconds": lambda time, frames, fps, tolerance=1: _near(time, frames, int(fps), tolerance)},
        "and five to each side must be near": {
            "at most 2": lambda time, frames, fps, tolerance=1: _near(time, frames, fps, min(tolerance, 2))
        },
        "Of a long video: Each frame must have its number": {
            "bytes": lambda time, frames, fps, tolerance=1: _near(
                time, frames, fps, tolerance, own=lambda t, fps: (t * fps).floor() % 256
            )
        },
    },
}
