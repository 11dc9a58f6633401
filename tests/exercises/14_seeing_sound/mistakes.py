"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import from_global_state, from_own_seed, then

from mmlearn.data.synthetic.scene_sound import add_noise
from mmlearn.evaluation import frames_near, si_sdr
from mmlearn.objectives import ratio_masks

# Sounds.


def _noise(
    waveform,
    snr,
    generator,
    *,
    draw=torch.randn,
    power=lambda x: x.square().mean(-1, keepdim=True),
    of_noise=None,
    gain=lambda ratio, snr: (ratio / 10 ** (snr / 10)).sqrt(),
    join=lambda x, noise, gain: x + gain * noise,
):
    """Noise at an SNR, or what differs in a single position."""
    noise = draw(*waveform.shape, generator=generator)
    snr = torch.as_tensor(snr).float().reshape(-1, 1)
    return join(waveform, noise, gain(power(waveform) / (of_noise or power)(noise), snr))


def _not_each(waveform, snr, generator):
    """A tensor of SNRs beside (b, samples): rows and samples are confused."""
    noise = torch.randn(*waveform.shape, generator=generator)
    ratio = waveform.square().mean(-1) / noise.square().mean(-1)
    gain = (ratio / 10 ** (torch.as_tensor(snr) / 10)).sqrt()
    return (
        waveform + gain.mean() * noise if gain.ndim and torch.as_tensor(snr).ndim else waveform + gain[:, None] * noise
    )


def _one_noise(waveform, snr, generator):
    noise = torch.randn(1, waveform.shape[1], generator=generator).expand_as(waveform)
    return _noise(waveform, snr, generator, draw=lambda *shape, generator: noise)


def _in_position(waveform, snr, generator):
    waveform += add_noise(waveform, snr, generator) - waveform
    return waveform


def _si_sdr(
    estimate,
    reference,
    *,
    centre=lambda x: x - x.mean(-1, keepdim=True),
    centre_reference=None,
    alpha=lambda e, s: (e * s).sum(-1, keepdim=True) / s.square().sum(-1, keepdim=True),
    score=lambda right, wrong: 10 * torch.log10((right + 1e-10 * (right + wrong)) / (wrong + 1e-10 * (right + wrong))),
    tiny=1e-30,
):
    """SI-SDR, or what differs in a single position."""
    estimate, reference = centre(estimate.double()), (centre_reference or centre)(reference.double())
    target = alpha(estimate, reference) * reference
    right, wrong = target.square().sum(-1), (target - estimate).square().sum(-1)
    return score(right + tiny, wrong + tiny).clamp(-100, 100).float()


def _from_the_angle(estimate, reference):
    """What is right is the part along the reference, cos²; what is wrong is at a right angle to it, sin²."""
    e, s = (F.normalize((x - x.mean(-1, keepdim=True)).double(), dim=-1) for x in (estimate, reference))
    right = (e * s).sum(-1).square().clamp(1e-10, 1 - 1e-10)
    return 10 * torch.log10(right / (1 - right)).float()


def _estimate_scaled(estimate, reference):
    """The estimate is fitted to the reference instead of the other way."""
    e, s = (x - x.mean(-1, keepdim=True) for x in (estimate, reference))
    fitted = (e * s).sum(-1, keepdim=True) / e.square().sum(-1, keepdim=True).clamp(min=1e-9) * e
    right, wrong = s.square().sum(-1), (fitted - s).square().sum(-1)
    return 10 * torch.log10(right / wrong.clamp(min=1e-7))


# When?


def _near(
    time, frames, fps, tolerance=1, *, own=lambda t, fps, frames: (t * fps).floor(), near=lambda d, t: d.abs() <= t
):
    """Frames near a moment, or what differs in a single position."""
    return near(torch.arange(frames) - own(time, fps, frames)[:, None], tolerance)


def _around(time, frames, fps, tolerance=1):
    """Time goes round: the last frame is beside the first."""
    own = (time * fps).floor()
    away = (torch.arange(frames) - own[:, None]).abs()
    away = torch.minimum(away, (frames - away).abs())
    return (away <= tolerance) & (own[:, None] < frames)


RIGHT = {  # right answers that are written in another way than the library's
    "add_noise": _noise,
    "ratio_masks": lambda m: torch.where(m.sum(1, keepdim=True) > 0, m / m.sum(1, keepdim=True), 1 / m.shape[1]),
    "si_sdr": _from_the_angle,
    "frames_near": _near,
}

MISTAKES = {
    "add_noise": {
        "The sound itself must stay as loud as it was": {
            "the sound is scaled": partial(_noise, join=lambda x, noise, gain: x / gain + noise),
            "the sum is brought back": partial(_noise, join=lambda x, noise, gain: (x + gain * noise) / 2),
            "the noise alone": lambda x, snr, generator: add_noise(x, snr, generator) - x,
        },
        "Noise must be added": {"no noise": lambda x, snr, generator: x.clone()},
        "The noise must have mean 0": {"from 0 to 1": partial(_noise, draw=torch.rand)},
        "Each row must have a noise of its own": {"one noise for all": _one_noise},
        "here it lies above": {"the other way": lambda x, snr, generator: add_noise(x, -snr, generator)},
        "Each row must have its own gain": {
            "one power for all": partial(_noise, power=lambda x: x.square().mean()),
            "a fixed gain": partial(_noise, gain=lambda ratio, snr: 0.01 * torch.ones_like(ratio)),
        },
        "in powers. Hint: SNR = 10 log10": {
            "no root": partial(_noise, gain=lambda ratio, snr: ratio / 10 ** (snr / 10)),
            "20 in the power": partial(_noise, gain=lambda ratio, snr: (ratio / 10 ** (snr / 20)).sqrt()),
            "10 in the amplitude": partial(_noise, gain=lambda ratio, snr: ratio.sqrt() / 10 ** (snr / 10)),
            "natural logarithm": partial(_noise, gain=lambda ratio, snr: (ratio / torch.exp(snr / 10)).sqrt()),
            "amplitudes for powers": partial(_noise, power=lambda x: x.abs().mean(-1, keepdim=True) ** 2),
        },
        "Clips of 40 samples: The SNR must be that exactly": {
            "noise of power 1": partial(_noise, of_noise=lambda noise: torch.ones(len(noise), 1)),
            "variances": partial(_noise, power=lambda x: x.var(-1, keepdim=True)),
        },
        "An SNR for each row: The SNRs must be those asked for": {
            "the mean of the SNRs": lambda x, snr, generator: add_noise(
                x, float(torch.as_tensor(snr).float().mean()), generator
            ),
            "one gain for several SNRs": _not_each,
        },
        "Another seed must give another result": {"a seed of its own": from_own_seed(add_noise)},
        "The same seed must give the same result": {"torch's own generator": from_global_state(add_noise)},
        "must leave its arguments as they are": {"in place": _in_position},
    },
    "ratio_masks": {
        "must sum to 1 in each bin": {
            "not divided": lambda m: m.clone(),
            "over frequencies": lambda m: m / m.sum(2, keepdim=True),
            "over clips": lambda m: m / m.sum(0, keepdim=True),
            "of the loudest": lambda m: m / m.amax(1, keepdim=True),
            "of all bins": lambda m: m / m.sum(),
        },
        "these are of their exponentials": {"softmax": lambda m: m.softmax(1)},
        "these are of powers": {"powers": lambda m: m.square() / m.square().sum(1, keepdim=True)},
        "here the loudest has all": {"binary": lambda m: (m == m.amax(1, keepdim=True)).float()},
        "Each mask must be its source's share of the sum": {
            "one minus": lambda m: (1 - ratio_masks(m)) / (m.shape[1] - 1),
            "roots": lambda m: m.sqrt() / m.sqrt().sum(1, keepdim=True),
            "logarithms": lambda m: (1 + m).log() / (1 + m).log().sum(1, keepdim=True),
        },
        "A source that sounds alone must get all": {"nobody gets nothing": lambda m: ratio_masks(m + 1e-3 * (m == 0))},
        "Where all are silent: Its result must be finite": {"0 over 0": lambda m: m / m.sum(1, keepdim=True)},
        "sources must get the same share": {
            "silence is nobody's": lambda m: (m / m.sum(1, keepdim=True)).nan_to_num(0.0),
            "silence is each one's": lambda m: (m / m.sum(1, keepdim=True)).nan_to_num(1.0),
        },
        "Magnitudes of 1e-12: What is a million million times softer": {
            "a small number below": lambda m: torch.where(
                m.sum(1, keepdim=True) > 0, m / (m.sum(1, keepdim=True) + 1e-8), 1 / m.shape[1]
            ),
            "a small number everywhere": lambda m: (m + 1e-8) / (m + 1e-8).sum(1, keepdim=True),
            "clamped high": lambda m: torch.where(
                m.sum(1, keepdim=True) > 0, m / m.sum(1, keepdim=True).clamp(min=1e-6), 1 / m.shape[1]
            ),
        },
        "must have shape": {"one source": lambda m: ratio_masks(m)[:, 0]},
        "must leave its arguments as they are": {"in place": lambda m: m.div_(m.sum(1, keepdim=True))},
    },
    "si_sdr": {
        "With a tenth of the wrong power it must be 10 dB": {
            "upside down": then(si_sdr, lambda y: -y),
            "20 times": then(si_sdr, lambda y: 2 * y),
            "natural logarithm": partial(_si_sdr, score=lambda right, wrong: 10 * (right / wrong).log()),
            "bels": partial(_si_sdr, score=lambda right, wrong: (right / wrong).log10()),
            "amplitudes": partial(_si_sdr, score=lambda right, wrong: 10 * (right / wrong).sqrt().log10()),
        },
        "as much right as wrong": {
            "no decibels": partial(_si_sdr, score=lambda right, wrong: right / wrong),
            "over everything": partial(_si_sdr, score=lambda right, wrong: 10 * (right / (right + wrong)).log10()),
            "scaled by the estimate's energy": partial(
                _si_sdr,
                alpha=lambda e, s: (e * s).sum(-1, keepdim=True) / e.square().sum(-1, keepdim=True).clamp(min=1e-9),
            ),
            "the estimate is fitted": _estimate_scaled,
        },
        "A louder estimate must have the same score": {"no scale": partial(_si_sdr, alpha=lambda e, s: 1.0)},
        "A constant added to the estimate must change nothing": {
            "not zero-mean": partial(_si_sdr, centre=lambda x: x),
            "the reference alone is zero-mean": partial(
                _si_sdr, centre=lambda x: x, centre_reference=lambda x: x - x.mean(-1, keepdim=True)
            ),
        },
        "A constant added to the reference must change nothing": {
            "the estimate alone is zero-mean": partial(_si_sdr, centre_reference=lambda x: x)
        },
        "Each row must lose its own mean": {"one mean for all": partial(_si_sdr, centre=lambda x: x - x.mean())},
        "here all have the mean": {"the mean over clips": lambda e, s: si_sdr(e, s).mean().expand(e.shape[:-1])},
        "must have shape (2, 3)": {
            "one number": then(si_sdr, lambda y: y.mean()),
            "over clips": lambda e, s: si_sdr(e.movedim(0, -1), s.movedim(0, -1)).movedim(0, -1),
        },
        "A perfect estimate: Its result must be finite": {
            "infinite": lambda e, s: torch.where((e == s).all(-1), torch.inf, si_sdr(e, s))
        },
        "A perfect estimate: It must have a high score": {
            "a large number below": partial(_si_sdr, score=lambda right, wrong: 10 * (right / (wrong + 1e-3)).log10())
        },
        "A silent estimate: It must have a low score": {
            "silence is as good as all": lambda e, s: torch.where((e == 0).all(-1), 0.0, si_sdr(e, s))
        },
        "A silent estimate: Its result must be finite": {
            "log of 0": lambda e, s: torch.where((e == 0).all(-1), -torch.inf, si_sdr(e, s))
        },
        "must leave its arguments as they are": {
            "in place": lambda e, s: si_sdr(e.sub_(e.mean(-1, keepdim=True) + 1), s)
        },
    },
    "frames_near": {
        "here a later frame is taken": {
            "rounded": partial(_near, own=lambda t, fps, frames: (t * fps).round()),
            "the next": partial(_near, own=lambda t, fps, frames: (t * fps).ceil()),
            "counted from 1": partial(_near, own=lambda t, fps, frames: (t * fps).floor() + 1),
        },
        "It must be the frame that the moment": {
            "divided": partial(_near, own=lambda t, fps, frames: (t / fps).floor()),
            "milliseconds": partial(_near, own=lambda t, fps, frames: (t * fps / 1000).floor()),
            "a share of the clip": partial(
                _near, own=lambda t, fps, frames: (t * frames).floor().clamp(max=frames - 1)
            ),
        },
        "With tolerance 0 there must be just one frame a moment": {
            "not in whole frames": partial(_near, own=lambda t, fps, frames: t * fps),
            "less than": partial(_near, near=lambda d, t: d.abs() < t),
            "no size": partial(_near, near=lambda d, t: d <= t),
        },
        "the second frame behind must be near": {
            "before alone": partial(_near, near=lambda d, t: (d <= 0) & (d >= -t))
        },
        "the second frame before must be near": {
            "behind alone": partial(_near, near=lambda d, t: (d >= 0) & (d <= t)),
            "always 1": partial(_near, near=lambda d, t: d.abs() <= min(t, 1)),
        },
        "With tolerance 2 there must be 5 frames": {
            "the edge alone": partial(_near, near=lambda d, t: (d.abs() == t) | (d == 0)),
            "twice as far": partial(_near, near=lambda d, t: d.abs() <= 2 * t),
        },
        "Left out, the tolerance": {
            "no default of 1": lambda t, frames, fps, tolerance=2: frames_near(t, frames, fps, tolerance)
        },
        "The last frame must not be near the first": {"around": _around},
        "A moment behind the end must not be moved": {
            "brought back": partial(_near, own=lambda t, fps, frames: (t * fps).floor().clamp(max=frames - 1))
        },
        "It must be boolean": {"zeros and ones": then(frames_near, lambda y: y.float())},
        "must have shape": {"turned": then(frames_near, lambda y: y.T)},
        "must leave its arguments": {
            "in place": lambda t, frames, fps, tolerance=1: _near(t.mul_(fps), frames, 1.0, tolerance)
        },
    },
}
