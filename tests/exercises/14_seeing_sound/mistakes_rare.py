"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

import torch

from mmlearn.evaluation.separation import si_sdr


def _near(time, frames, fps, tolerance=1, *, own=lambda t, fps: (t * fps).floor(), last=None):
    at = own(time, fps).long()
    return (torch.arange(frames) - at[:, None]).abs() <= tolerance


def _written(time, frames, fps, tolerance=1):
    table = torch.zeros(len(time), frames, dtype=torch.bool)
    for i, t in enumerate(time.tolist()):
        own = int(t * fps)
        for k in range(max(0, own - tolerance), min(frames, own + tolerance + 1)):
            table[i, k] = True
    return table


def _score(estimate, reference, *, use=lambda a: a, least=1e-10, centre=True):
    s, e = reference, estimate
    if centre:
        s, e = s - s.mean(-1, keepdim=True), e - e.mean(-1, keepdim=True)
    a = use((e * s).sum(-1, keepdim=True) / s.square().sum(-1, keepdim=True))
    small = least * e.square().sum(-1) + 1e-30
    return 10 * (((a * s).square().sum(-1) + small) / ((a * s - e).square().sum(-1) + small)).log10()


RARE = {
    "si_sdr": {
        "?": {
            "no negative gain": lambda e, s: _score(e, s, use=lambda a: a.clamp(min=0)),
            "absolute gain": lambda e, s: _score(e, s, use=lambda a: a.abs()),
            "gain of at most 10": lambda e, s: _score(e, s, use=lambda a: a.clamp(max=10)),
            "at most 100 dB": lambda e, s: si_sdr(e, s).clamp(-60, 60),
            "squeezed": lambda e, s: si_sdr(e, s).squeeze(),
            "by norm": lambda e, s: si_sdr(e / e.abs().amax(-1, keepdim=True).clamp(min=1e-6), s),
        },
    },
    "frames_near": {
        "?": {
            "squeezed": lambda *given: _near(*given).squeeze(),
            "whole seconds": lambda time, frames, fps, tolerance=1: _near(time, frames, int(fps), tolerance),
            "cut off": lambda time, frames, fps, tolerance=1: _near(time, frames, fps, tolerance, own=lambda t, fps: (t * fps).trunc()),
            "by the length": lambda time, frames, fps, tolerance=1: _near(time, frames, fps, tolerance, own=lambda t, fps: t // (1 / fps)),
            "at most 2": lambda time, frames, fps, tolerance=1: _near(time, frames, fps, min(tolerance, 2)),
            "bytes": lambda time, frames, fps, tolerance=1: _near(time, frames, fps, tolerance, own=lambda t, fps: (t * fps).floor() % 256),
            "another default": lambda time, frames, fps, tolerance=2: _near(time, frames, fps, tolerance),
            "always one": lambda time, frames, fps, tolerance=1: _near(time, frames, fps, max(tolerance, 0)) | ((time >= frames / fps)[:, None] & (torch.arange(frames) == frames - 1) & (tolerance > 1)),
        },
    },
}
