"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][name] = (function, fragment)``."""

from functools import partial

import torch
import torch.nn.functional as F

from mmlearn.data.made.scene_sound import add_noise
from mmlearn.evaluation import frames_near, si_sdr
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
        "the sound is scaled": (
            partial(_noise, join=lambda x, noise, gain: x / gain + noise),
            "The sound itself must stay as loud as it was",
        ),
        "the sum is brought back": (
            partial(_noise, join=lambda x, noise, gain: (x + gain * noise) / 2),
            "The sound itself must stay as loud as it was",
        ),
        "no noise": (lambda x, snr, generator: x.clone(), "Noise must be added"),
        "from 0 to 1": (partial(_noise, draw=torch.rand), "The noise must have mean 0"),
        "one noise for all": (_one_noise, "Each row must have a noise of its own"),
        "the other way": (lambda x, snr, generator: add_noise(x, -snr, generator), "here it lies above"),
        "one power for all": (
            partial(_noise, power=lambda x: x.square().mean()),
            "Each row must have its own gain",
        ),
        "a fixed gain": (
            partial(_noise, gain=lambda ratio, snr: 0.01 * torch.ones_like(ratio)),
            "Each row must have its own gain",
        ),
        "no root": (
            partial(_noise, gain=lambda ratio, snr: ratio / 10 ** (snr / 10)),
            "in powers. Hint: SNR = 10 log10",
        ),
        "20 in the power": (
            partial(_noise, gain=lambda ratio, snr: (ratio / 10 ** (snr / 20)).sqrt()),
            "in powers. Hint: SNR = 10 log10",
        ),
        "10 in the amplitude": (
            partial(_noise, gain=lambda ratio, snr: ratio.sqrt() / 10 ** (snr / 10)),
            "in powers. Hint: SNR = 10 log10",
        ),
        "natural logarithm": (
            partial(_noise, gain=lambda ratio, snr: (ratio / torch.exp(snr / 10)).sqrt()),
            "in powers. Hint: SNR = 10 log10",
        ),
        "amplitudes for powers": (
            partial(_noise, power=lambda x: x.abs().mean(-1, keepdim=True) ** 2),
            "in powers. Hint: SNR = 10 log10",
        ),
        "noise of power 1": (
            partial(_noise, of_noise=lambda noise: torch.ones(len(noise), 1)),
            "Clips of 40 samples: The SNR must be that exactly",
        ),
        "variances": (
            partial(_noise, power=lambda x: x.var(-1, keepdim=True)),
            "Clips of 40 samples: The SNR must be that exactly",
        ),
        "the mean of the SNRs": (
            lambda x, snr, generator: add_noise(x, float(torch.as_tensor(snr).float().mean()), generator),
            "An SNR for each row: The SNRs must be those asked for",
        ),
        "one gain for several SNRs": (_not_each, "An SNR for each row: The SNRs must be those asked for"),
        "a seed of its own": (
            lambda x, snr, generator: add_noise(x, snr, torch.Generator().manual_seed(0)),
            "Another seed must give another noise",
        ),
        "torch's own generator": (
            lambda x, snr, generator: add_noise(x, snr, torch.default_generator),
            "The same seed must give the same noise",
        ),
        "in place": (_in_place, "must leave its arguments as they are"),
        "the noise alone": (lambda x, snr, generator: add_noise(x, snr, generator) - x, "must stay as loud as it was"),
    },
    "ratio_masks": {
        "not divided": (lambda m: m.clone(), "must sum to 1 in each bin"),
        "over frequencies": (lambda m: m / m.sum(2, keepdim=True), "must sum to 1 in each bin"),
        "over clips": (lambda m: m / m.sum(0, keepdim=True), "must sum to 1 in each bin"),
        "of the loudest": (lambda m: m / m.amax(1, keepdim=True), "must sum to 1 in each bin"),
        "of all bins": (lambda m: m / m.sum(), "must sum to 1 in each bin"),
        "softmax": (lambda m: m.softmax(1), "these are of their exponentials"),
        "powers": (lambda m: m.square() / m.square().sum(1, keepdim=True), "these are of powers"),
        "binary": (lambda m: (m == m.amax(1, keepdim=True)).float(), "here the loudest has all"),
        "one minus": (
            lambda m: (1 - ratio_masks(m)) / (m.shape[1] - 1),
            "Each mask must be its source's share of the sum",
        ),
        "roots": (lambda m: m.sqrt() / m.sqrt().sum(1, keepdim=True), "Each mask must be its source's share"),
        "logarithms": (
            lambda m: (1 + m).log() / (1 + m).log().sum(1, keepdim=True),
            "Each mask must be its source's share of the sum",
        ),
        "nobody gets nothing": (
            lambda m: ratio_masks(m + 1e-3 * (m == 0)),
            "A source that sounds alone must get all",
        ),
        "0 over 0": (lambda m: m / m.sum(1, keepdim=True), "Where all are silent: Its result must be finite"),
        "silence is nobody's": (
            lambda m: (m / m.sum(1, keepdim=True)).nan_to_num(0.0),
            "sources must get the same share",
        ),
        "silence is each one's": (
            lambda m: (m / m.sum(1, keepdim=True)).nan_to_num(1.0),
            "sources must get the same share",
        ),
        "a small number below": (
            lambda m: torch.where(m.sum(1, keepdim=True) > 0, m / (m.sum(1, keepdim=True) + 1e-8), 1 / m.shape[1]),
            "Magnitudes of 1e-12: What is a million million times softer",
        ),
        "a small number everywhere": (
            lambda m: (m + 1e-8) / (m + 1e-8).sum(1, keepdim=True),
            "Magnitudes of 1e-12: What is a million million times softer",
        ),
        "clamped high": (
            lambda m: torch.where(
                m.sum(1, keepdim=True) > 0, m / m.sum(1, keepdim=True).clamp(min=1e-6), 1 / m.shape[1]
            ),
            "Magnitudes of 1e-12: What is a million million times softer",
        ),
        "one source": (lambda m: ratio_masks(m)[:, 0], "must have shape"),
        "in place": (lambda m: m.div_(m.sum(1, keepdim=True)), "must leave its arguments as they are"),
    },
    "si_sdr": {
        "upside down": (lambda e, s: -si_sdr(e, s), "With a tenth of the wrong power it must be 10 dB"),
        "20 times": (lambda e, s: 2 * si_sdr(e, s), "With a tenth of the wrong power it must be 10 dB"),
        "natural logarithm": (
            partial(_si_sdr, score=lambda right, wrong: 10 * (right / wrong).log()),
            "With a tenth of the wrong power it must be 10 dB",
        ),
        "no decibels": (partial(_si_sdr, score=lambda right, wrong: right / wrong), "as much right as wrong"),
        "bels": (
            partial(_si_sdr, score=lambda right, wrong: (right / wrong).log10()),
            "With a tenth of the wrong power it must be 10 dB",
        ),
        "over everything": (
            partial(_si_sdr, score=lambda right, wrong: 10 * (right / (right + wrong)).log10()),
            "as much right as wrong",
        ),
        "amplitudes": (
            partial(_si_sdr, score=lambda right, wrong: 10 * (right / wrong).sqrt().log10()),
            "With a tenth of the wrong power it must be 10 dB",
        ),
        "no scale": (partial(_si_sdr, alpha=lambda e, s: 1.0), "A louder estimate must have the same score"),
        "scaled by the estimate's energy": (
            partial(
                _si_sdr,
                alpha=lambda e, s: (e * s).sum(-1, keepdim=True) / e.square().sum(-1, keepdim=True).clamp(min=1e-9),
            ),
            "With as much right as wrong it must be 0 dB",
        ),
        "the estimate is fitted": (_estimate_scaled, "With as much right as wrong it must be 0 dB"),
        "not zero-mean": (partial(_si_sdr, centre=lambda x: x), "A constant added to the estimate must change nothing"),
        "the reference alone is zero-mean": (
            partial(_si_sdr, centre=lambda x: x, centre_reference=lambda x: x - x.mean(-1, keepdim=True)),
            "A constant added to the estimate must change nothing",
        ),
        "the estimate alone is zero-mean": (
            partial(_si_sdr, centre_reference=lambda x: x),
            "A constant added to the reference must change nothing",
        ),
        "one mean for all": (partial(_si_sdr, centre=lambda x: x - x.mean()), "Each row must lose its own mean"),
        "the mean over clips": (
            lambda e, s: si_sdr(e, s).mean().expand(e.shape[:-1]),
            "here all have the mean",
        ),
        "one number": (lambda e, s: si_sdr(e, s).mean(), "must have shape (2, 3); this one has ()"),
        "over clips": (
            lambda e, s: si_sdr(e.movedim(0, -1), s.movedim(0, -1)).movedim(0, -1),
            "must have shape (2, 3)",
        ),
        "infinite": (
            lambda e, s: torch.where((e == s).all(-1), torch.inf, si_sdr(e, s)),
            "A perfect estimate: Its result must be finite",
        ),
        "a large number below": (
            partial(_si_sdr, score=lambda right, wrong: 10 * (right / (wrong + 1e-3)).log10()),
            "A perfect estimate: It must have a high score",
        ),
        "silence is as good as all": (
            lambda e, s: torch.where((e == 0).all(-1), 0.0, si_sdr(e, s)),
            "A silent estimate: It must have a low score",
        ),
        "log of 0": (
            lambda e, s: torch.where((e == 0).all(-1), -torch.inf, si_sdr(e, s)),
            "A silent estimate: Its result must be finite",
        ),
        "in place": (
            lambda e, s: si_sdr(e.sub_(e.mean(-1, keepdim=True) + 1), s),
            "must leave its arguments as they are",
        ),
    },
    "frames_near": {
        "rounded": (partial(_near, own=lambda t, fps, frames: (t * fps).round()), "here a later frame is taken"),
        "the next": (partial(_near, own=lambda t, fps, frames: (t * fps).ceil()), "here a later frame is taken"),
        "counted from 1": (
            partial(_near, own=lambda t, fps, frames: (t * fps).floor() + 1),
            "here a later frame is taken",
        ),
        "divided": (
            partial(_near, own=lambda t, fps, frames: (t / fps).floor()),
            "It must be the frame that the moment",
        ),
        "milliseconds": (
            partial(_near, own=lambda t, fps, frames: (t * fps / 1000).floor()),
            "It must be the frame that the moment falls in",
        ),
        "a share of the clip": (
            partial(_near, own=lambda t, fps, frames: (t * frames).floor().clamp(max=frames - 1)),
            "It must be the frame that the moment falls in",
        ),
        "not in whole frames": (
            partial(_near, own=lambda t, fps, frames: t * fps),
            "With tolerance 0 there must be just one frame a moment",
        ),
        "less than": (partial(_near, near=lambda d, t: d.abs() < t), "With tolerance 0 there must be just one frame"),
        "before alone": (
            partial(_near, near=lambda d, t: (d <= 0) & (d >= -t)),
            "the second frame behind must be near",
        ),
        "behind alone": (partial(_near, near=lambda d, t: (d >= 0) & (d <= t)), "the second frame before must be near"),
        "no size": (partial(_near, near=lambda d, t: d <= t), "With tolerance 0 there must be just one frame"),
        "the edge alone": (
            partial(_near, near=lambda d, t: (d.abs() == t) | (d == 0)),
            "With tolerance 2 there must be 5 frames",
        ),
        "always 1": (partial(_near, near=lambda d, t: d.abs() <= min(t, 1)), "the second frame before must be near"),
        "twice as far": (partial(_near, near=lambda d, t: d.abs() <= 2 * t), "With tolerance 2 there must be 5 frames"),
        "no default of 1": (
            lambda t, frames, fps, tolerance=2: frames_near(t, frames, fps, tolerance),
            "Left out, the tolerance",
        ),
        "around": (_around, "The last frame must not be near the first"),
        "brought back": (
            partial(_near, own=lambda t, fps, frames: (t * fps).floor().clamp(max=frames - 1)),
            "A moment behind the end must not be moved",
        ),
        "zeros and ones": (lambda *given: frames_near(*given).float(), "It must be boolean"),
        "turned": (lambda *given: frames_near(*given).T, "must have shape"),
        "in place": (
            lambda t, frames, fps, tolerance=1: _near(t.mul_(fps), frames, 1.0, tolerance),
            "must leave its arguments",
        ),
    },
    "modality_dropout": {
        "dropped instead of kept": (
            partial(_drop, keep=lambda both, audio: (~(both | audio), ~(both | ~audio))),
            "With both = 1 nothing must be dropped",
        ),
        "p for 1 - p": (
            partial(_drop, keep=lambda both, audio: (~both | audio, ~both | ~audio)),
            "With both = 1 nothing",
        ),
        "one is always dropped": (partial(_drop, keep=lambda both, audio: (audio, ~audio)), "With both = 1 nothing"),
        "each by itself": (_each_by_itself, "No clip must lose both"),
        "a batch at once": (
            partial(_drop, draw=lambda real, generator: torch.rand(2, 1, generator=generator).expand(2, len(real))),
            "here one draw holds for the whole batch",
        ),
        "exchanged": (
            partial(_drop, keep=lambda both, audio: (both | ~audio, both | audio)),
            "With both = 0 and audio = 1 the sound alone must stay",
        ),
        "never dropped": (
            partial(_drop, keep=lambda both, audio: (torch.ones_like(both), torch.ones_like(both))),
            "here one draw holds for the whole batch",
        ),
        "both exchanged with audio": (
            lambda real, *, generator, both=0.5, audio=0.5: tuple(
                part if both < 1 else torch.ones_like(part)
                for part in modality_dropout(
                    real, generator=generator, both=0 if both == 0 else audio, audio=1 if both == 0 else both
                )
            ),
            "Both must be kept in a share of",
        ),
        "squared": (
            lambda real, *, generator, both=0.5, audio=0.5: modality_dropout(
                real, generator=generator, both=both**2, audio=audio
            ),
            "Both must be kept in a share of",
        ),
        "of all clips": (_not_conditional, "The sound alone must stay in (1 -"),
        "half and half": (
            lambda real, *, generator, both=0.5, audio=0.5: modality_dropout(
                real, generator=generator, both=both, audio=0.5 if both else audio
            ),
            "The sound alone must stay in (1 -",
        ),
        "one number for both": (
            partial(_drop, draw=lambda real, generator: torch.rand(1, len(real), generator=generator).expand(2, -1)),
            "The sound alone must stay in (1 -",
        ),
        "in order": (_in_order, "Clips that follow each other must have nothing to do with each other"),
        "frame by frame": (_per_frame, "must have shape"),
        "torch's own generator": (
            lambda real, *, generator, **p: modality_dropout(real, generator=torch.default_generator, **p),
            "The same seed must draw the same",
        ),
        "a seed of its own": (
            lambda real, *, generator, **p: modality_dropout(real, generator=torch.Generator().manual_seed(0), **p),
            "Another seed must draw others",
        ),
        "zeros and ones": (
            lambda real, *, generator, **p: tuple(x.float() for x in modality_dropout(real, generator=generator, **p)),
            "Both must be boolean",
        ),
        "one tensor": (
            lambda real, *, generator, **p: torch.stack(modality_dropout(real, generator=generator, **p)),
            "It must return two",
        ),
    },
    "masked_multimodal_cluster": {
        "all frames": (partial(_multimodal, counts=lambda a, v, real: real), "Frames that are seen and heard must not"),
        "hidden in both": (
            partial(_multimodal, counts=lambda a, v, real: a & v & real),
            "here only those hidden in both",
        ),
        "sound alone": (
            partial(_multimodal, counts=lambda a, v, real: a & real),
            "Frames whose picture is hidden must",
        ),
        "pictures alone": (
            partial(_multimodal, counts=lambda a, v, real: v & real),
            "Frames whose sound is hidden must",
        ),
        "hidden in one": (
            partial(_multimodal, counts=lambda a, v, real: (a ^ v) & real),
            "Frames hidden in both streams",
        ),
        "what is not hidden": (
            partial(_multimodal, counts=lambda a, v, real: ~(a | v) & real),
            "It must be the mean cross-entropy of the frames that count",
        ),
        "padding too": (
            partial(_multimodal, counts=lambda a, v, real: a | v),
            "Frames where a clip is over must not count",
        ),
        "divided by padding too": (_padding_counts_in_the_mean, "Logits that know nothing must cost ln c"),
        "sum": (partial(_multimodal, join=torch.sum), "Logits that know nothing must cost ln c"),
        "no minus": (lambda *given: -masked_multimodal_cluster(*given), "Logits that know nothing must cost ln c"),
        "divided by all frames": (
            lambda z, k, a, v, real: _multimodal(z, k, a, v, real, join=torch.sum) / real.sum(),
            "Logits that know nothing must cost ln c",
        ),
        "softmax before": (
            lambda z, *given: masked_multimodal_cluster(z.softmax(-1), *given),
            "It must be the mean cross-entropy of the frames that count",
        ),
        "over frames": (
            lambda z, *given: masked_multimodal_cluster(z.log_softmax(1) + z.shape[1] * 0, *given),
            "It must be the mean cross-entropy of the frames that count",
        ),
        "mean over clips": (_mean_over_clips, "here it is over clips"),
        "once for each stream": (
            lambda z, k, a, v, real: (
                (masked_multimodal_cluster(z, k, a, a, real) + masked_multimodal_cluster(z, k, v, v, real)) / 2
            ),
            "It must be the mean cross-entropy of the frames that count",
        ),
        "times the mask": (_times_the_mask, "Padding with other numbers: It stops in line"),
        "0 over 0": (partial(_multimodal, join=torch.mean), "Nothing hidden: Its result must be finite"),
        "one loss a frame": (partial(_multimodal, join=lambda each: each), "must have shape ()"),
        "no gradient": (lambda *given: masked_multimodal_cluster(*given).detach(), "A gradient must flow back"),
    },
    "imposters": {
        "everything is shifted": (
            partial(_shown, where=torch.ones_like),
            "A frame that is not hidden must show itself",
        ),
        "hidden ones stay": (
            partial(_shown, where=torch.logical_not),
            "A frame that is not hidden must show itself",
        ),
        "any frame": (_any_frame, "A run must show another run"),
        "a shift for each frame": (
            partial(_shown, at=lambda start, masked: torch.arange(masked.shape[1]).expand_as(masked)),
            "A run must show another run",
        ),
        "repeated at the end": (
            partial(_shown, around=lambda place, frames: torch.minimum(place, frames - 1)),
            "A run must show another run",
        ),
        "beyond the end": (
            partial(_shown, around=lambda place, frames: place.clamp(max=19)),
            "some lie behind its end",
        ),
        "around the batch": (_batch_length, "some lie behind its end"),
        "from 1 on": (
            partial(_shown, least=lambda length, frames: torch.ones_like(length)),
            "Nothing of a hidden run must show itself",
        ),
        "up to the end": (
            partial(_shown, most=lambda length, frames, least: frames - least + 1),
            "Nothing of a hidden run must show itself",
        ),
        "0 too": (
            partial(_shown, least=lambda length, frames: torch.zeros_like(length)),
            "Nothing of a hidden run must show",
        ),
        "always the next": (_always_the_next, "The shift must be drawn anew by chance"),
        "one shift a clip": (
            partial(
                _shown,
                least=lambda length, frames: torch.full_like(length, 5).clamp(max=4).where(frames == 20, length),
                at=lambda start, masked: torch.zeros_like(start),
                most=lambda length, frames, least: (frames - 2 * least + 1).expand_as(length),
            ),
            "Two runs of a clip must be shifted each by itself",
        ),
        "one end too few": (
            partial(_shown, most=lambda length, frames, least: frames - 2 * least),
            "Every shift from l to n - l must be as likely",
        ),
        "nearer is likelier": (
            lambda masked, real, *, generator: _shown(
                masked,
                real,
                generator=generator,
                most=lambda length, frames, least: (frames - 2 * least) // 2 + 1,
            ),
            "Every shift from l to n - l must be as likely",
        ),
        "torch's own generator": (
            lambda masked, real, *, generator: imposters(masked, real, generator=torch.default_generator),
            "The same seed must draw the same",
        ),
        "a seed of its own": (
            lambda masked, real, *, generator: imposters(masked, real, generator=torch.Generator().manual_seed(0)),
            "The shift must be drawn anew by chance",
        ),
        "shares": (
            lambda masked, real, *, generator: imposters(masked, real, generator=generator) / 1.0,
            "It must return numbers of frames",
        ),
    },
}
