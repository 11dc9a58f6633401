"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F

from mmlearn.data.made.scene_sound import add_noise
from mmlearn.evaluation import frames_near, si_sdr
from mmlearn.exercises.mistakes import detached, from_global_state, from_own_seed, then
from mmlearn.models.audiovisual.av_hubert import imposters
from mmlearn.objectives import masked_multimodal_cluster, modality_dropout, ratio_masks

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
    """Noise at an SNR, or what differs in a single place."""
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


def _in_place(waveform, snr, generator):
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
    """SI-SDR, or what differs in a single place."""
    estimate, reference = centre(estimate.double()), (centre_reference or centre)(reference.double())
    target = alpha(estimate, reference) * reference
    right, wrong = target.square().sum(-1), (target - estimate).square().sum(-1)
    return score(right + tiny, wrong + tiny).clamp(-100, 100).float()


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
    """Frames near a moment, or what differs in a single place."""
    return near(torch.arange(frames) - own(time, fps, frames)[:, None], tolerance)


def _around(time, frames, fps, tolerance=1):
    """Time goes round: the last frame is beside the first."""
    own = (time * fps).floor()
    away = (torch.arange(frames) - own[:, None]).abs()
    away = torch.minimum(away, (frames - away).abs())
    return (away <= tolerance) & (own[:, None] < frames)


# What is dropped, and what is hidden.


def _drop(
    real,
    *,
    generator,
    both=0.5,
    audio=0.5,
    draw=lambda real, generator: torch.rand(2, len(real), generator=generator),
    keep=lambda both, audio: (both | audio, both | ~audio),
):
    """Modality dropout, or what differs in a single place."""
    one, other = draw(real, generator)
    return keep(one < both, other < audio)


def _each_by_itself(real, *, generator, both=0.5, audio=0.5):
    """Either modality is dropped by itself, so that some clips lose both."""
    one, other = torch.rand(2, len(real), generator=generator)
    drop = (1 - both) / 2
    return one >= drop * (2 - audio) * (both < 1), other >= drop * (1 + audio) * (both < 1)


def _not_conditional(real, *, generator, both=0.5, audio=0.5):
    """p_a is taken as the share of all clips that keep the sound alone."""
    chance = torch.rand(len(real), generator=generator)
    alone = (chance >= both) & (chance < min(1.0, both + audio))
    keeps = chance < both
    return keeps | alone, keeps | ~alone


def _in_order(real, *, generator, both=0.5, audio=0.5):
    """The first so many clips of the batch keep both."""
    n = len(real)
    keeps, heard = torch.arange(n) < round(both * n), torch.rand(n, generator=generator) < audio
    return keeps | heard, keeps | ~heard


def _per_frame(real, *, generator, both=0.5, audio=0.5):
    one, other = torch.rand(2, *real.shape, generator=generator)
    return (one < both) | (other < audio), (one < both) | (other >= audio)


def _multimodal(
    logits,
    cluster,
    audio,
    video,
    real,
    *,
    counts=lambda a, v, real: (a | v) & real,
    each=lambda z, k: F.cross_entropy(z, k, reduction="none"),
    join=lambda each: each.sum() / max(len(each), 1),
):
    """Masked clusters of two streams, or what differs in a single place."""
    where = counts(audio, video, real)
    return join(each(logits[where], cluster[where]))


def _mean_over_clips(logits, cluster, audio, video, real):
    parts = [_multimodal(*(x[i : i + 1] for x in (logits, cluster, audio, video, real))) for i in range(len(real))]
    return torch.stack(parts).mean()


def _padding_counts_in_the_mean(logits, cluster, audio, video, real):
    where = (audio | video) & real
    each = F.cross_entropy(logits.mT, cluster.clamp(min=0), reduction="none") * where
    return each.sum() / (audio | video).sum().clamp(min=1)


def _times_the_mask(logits, cluster, audio, video, real):
    where = ((audio | video) & real).float()
    each = -logits.log_softmax(-1).gather(2, cluster[..., None])[..., 0]
    return (each * where).sum() / where.sum().clamp(min=1)


def _shown(
    masked,
    real,
    *,
    generator,
    least=lambda length, frames: torch.where(2 * length <= frames, length, 1),
    most=lambda length, frames, least: frames - 2 * least + 1,
    around=lambda place, frames: place % frames,
    at=lambda start, masked: start,
    where=lambda masked: masked,
):
    """Imposters, or what differs in a single place."""
    place = torch.arange(masked.shape[1]).expand_as(masked)
    begins = masked & ~F.pad(masked, (1, 0))[:, :-1]
    start = torch.where(begins, place, 0).cummax(1).values
    run = begins.int().cumsum(1)
    length = ((run[:, :, None] == run[:, None]) & masked[:, None]).sum(-1)
    frames = real.sum(1, keepdim=True)
    low = least(length, frames)
    chance = torch.rand(masked.shape, generator=generator).gather(1, at(start, masked))
    shift = low + (chance * most(length, frames, low).clamp(min=1)).long()
    return torch.where(where(masked) & (frames > 1), around(place + shift, frames), place)


def _any_frame(masked, real, *, generator):
    """For each hidden frame any frame of the clip."""
    place = torch.arange(masked.shape[1]).expand_as(masked)
    drawn = (torch.rand(masked.shape, generator=generator) * real.sum(1, keepdim=True)).long()
    return torch.where(masked, drawn, place)


def _always_the_next(masked, real, *, generator):
    return _shown(masked, real, generator=generator, most=lambda length, frames, least: torch.ones_like(length))


def _batch_length(masked, real, *, generator):
    return imposters(masked, torch.ones_like(real), generator=generator)


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
        "Another seed must give another noise": {"a seed of its own": from_own_seed(add_noise)},
        "The same seed must give the same noise": {"torch's own generator": from_global_state(add_noise)},
        "must leave its arguments as they are": {"in place": _in_place},
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
    "modality_dropout": {
        "With both = 1 nothing must be dropped": {
            "dropped instead of kept": partial(_drop, keep=lambda both, audio: (~(both | audio), ~(both | ~audio))),
            "p for 1 - p": partial(_drop, keep=lambda both, audio: (~both | audio, ~both | ~audio)),
            "one is always dropped": partial(_drop, keep=lambda both, audio: (audio, ~audio)),
        },
        "No clip must lose both": {"each by itself": _each_by_itself},
        "here one draw holds for the whole batch": {
            "a batch at once": partial(
                _drop, draw=lambda real, generator: torch.rand(2, 1, generator=generator).expand(2, len(real))
            ),
            "never dropped": partial(_drop, keep=lambda both, audio: (torch.ones_like(both), torch.ones_like(both))),
        },
        "With both = 0 and audio = 1 the sound alone must stay": {
            "exchanged": partial(_drop, keep=lambda both, audio: (both | ~audio, both | audio))
        },
        "Both must be kept in a share of": {
            "both exchanged with audio": lambda real, *, generator, both=0.5, audio=0.5: tuple(
                part if both < 1 else torch.ones_like(part)
                for part in modality_dropout(
                    real, generator=generator, both=0 if both == 0 else audio, audio=1 if both == 0 else both
                )
            ),
            "squared": lambda real, *, generator, both=0.5, audio=0.5: modality_dropout(
                real, generator=generator, both=both**2, audio=audio
            ),
        },
        "The sound alone must stay in (1 -": {
            "of all clips": _not_conditional,
            "half and half": lambda real, *, generator, both=0.5, audio=0.5: modality_dropout(
                real, generator=generator, both=both, audio=0.5 if both else audio
            ),
            "one number for both": partial(
                _drop, draw=lambda real, generator: torch.rand(1, len(real), generator=generator).expand(2, -1)
            ),
        },
        "Clips that follow each other must have nothing to do with each other": {"in order": _in_order},
        "must have shape": {"frame by frame": _per_frame},
        "The same seed must draw the same": {"torch's own generator": from_global_state(modality_dropout)},
        "Another seed must draw others": {"a seed of its own": from_own_seed(modality_dropout)},
        "Both must be boolean": {"zeros and ones": then(modality_dropout, lambda y: tuple(x.float() for x in y))},
        "It must return two": {"one tensor": then(modality_dropout, lambda y: torch.stack(y))},
    },
    "masked_multimodal_cluster": {
        "Frames that are seen and heard must not": {"all frames": partial(_multimodal, counts=lambda a, v, real: real)},
        "here only those hidden in both": {
            "hidden in both": partial(_multimodal, counts=lambda a, v, real: a & v & real)
        },
        "Frames whose picture is hidden must": {
            "sound alone": partial(_multimodal, counts=lambda a, v, real: a & real)
        },
        "Frames whose sound is hidden must": {
            "pictures alone": partial(_multimodal, counts=lambda a, v, real: v & real)
        },
        "Frames hidden in both streams": {
            "hidden in one": partial(_multimodal, counts=lambda a, v, real: (a ^ v) & real)
        },
        "It must be the mean cross-entropy of the frames that count": {
            "what is not hidden": partial(_multimodal, counts=lambda a, v, real: ~(a | v) & real),
            "softmax before": lambda z, *given: masked_multimodal_cluster(z.softmax(-1), *given),
            "over frames": lambda z, *given: masked_multimodal_cluster(z.log_softmax(1) + z.shape[1] * 0, *given),
            "once for each stream": lambda z, k, a, v, real: (
                (masked_multimodal_cluster(z, k, a, a, real) + masked_multimodal_cluster(z, k, v, v, real)) / 2
            ),
        },
        "Frames where a clip is over must not count": {
            "padding too": partial(_multimodal, counts=lambda a, v, real: a | v)
        },
        "Logits that know nothing must cost ln c": {
            "divided by padding too": _padding_counts_in_the_mean,
            "sum": partial(_multimodal, join=torch.sum),
            "no minus": then(masked_multimodal_cluster, lambda y: -y),
            "divided by all frames": lambda z, k, a, v, real: (
                _multimodal(z, k, a, v, real, join=torch.sum) / real.sum()
            ),
        },
        "here it is over clips": {"mean over clips": _mean_over_clips},
        "Padding with other numbers: It stops in line": {"times the mask": _times_the_mask},
        "Nothing hidden: Its result must be finite": {"0 over 0": partial(_multimodal, join=torch.mean)},
        "must have shape ()": {"one loss a frame": partial(_multimodal, join=lambda each: each)},
        "A gradient must flow back": {"no gradient": detached(masked_multimodal_cluster)},
    },
    "imposters": {
        "A frame that is not hidden must show itself": {
            "everything is shifted": partial(_shown, where=torch.ones_like),
            "hidden ones stay": partial(_shown, where=torch.logical_not),
        },
        "A run must show another run": {
            "any frame": _any_frame,
            "a shift for each frame": partial(
                _shown, at=lambda start, masked: torch.arange(masked.shape[1]).expand_as(masked)
            ),
            "repeated at the end": partial(_shown, around=lambda place, frames: torch.minimum(place, frames - 1)),
        },
        "some lie behind its end": {
            "beyond the end": partial(_shown, around=lambda place, frames: place.clamp(max=19)),
            "around the batch": _batch_length,
        },
        "Nothing of a hidden run must show itself": {
            "from 1 on": partial(_shown, least=lambda length, frames: torch.ones_like(length)),
            "up to the end": partial(_shown, most=lambda length, frames, least: frames - least + 1),
            "0 too": partial(_shown, least=lambda length, frames: torch.zeros_like(length)),
        },
        "The shift must be drawn anew by chance": {
            "always the next": _always_the_next,
            "a seed of its own": from_own_seed(imposters),
        },
        "Two runs of a clip must be shifted each by itself": {
            "one shift a clip": partial(
                _shown,
                least=lambda length, frames: torch.full_like(length, 5).clamp(max=4).where(frames == 20, length),
                at=lambda start, masked: torch.zeros_like(start),
                most=lambda length, frames, least: (frames - 2 * least + 1).expand_as(length),
            )
        },
        "Every shift from l to n - l must be as likely": {
            "one end too few": partial(_shown, most=lambda length, frames, least: frames - 2 * least),
            "nearer is likelier": lambda masked, real, *, generator: _shown(
                masked, real, generator=generator, most=lambda length, frames, least: (frames - 2 * least) // 2 + 1
            ),
        },
        "The same seed must draw the same": {"torch's own generator": from_global_state(imposters)},
        "It must return numbers of frames": {"shares": then(imposters, lambda y: y / 1.0)},
    },
}
