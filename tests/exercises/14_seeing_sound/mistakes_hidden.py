"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import detached, from_global_state, from_own_seed, then

from mmlearn.models.audiovisual.av_hubert import imposters
from mmlearn.objectives import masked_multimodal_cluster, modality_dropout


def _drop(
    real,
    *,
    generator,
    both=0.5,
    audio=0.5,
    draw=lambda real, generator: torch.rand(2, len(real), generator=generator),
    keep=lambda both, audio: (both | audio, both | ~audio),
):
    """Modality dropout, or what differs in a single position."""
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
    """Masked clusters of two streams, or what differs in a single position."""
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
    around=lambda position, frames: position % frames,
    at=lambda start, masked: start,
    where=lambda masked: masked,
):
    """Imposters, or what differs in a single position."""
    position = torch.arange(masked.shape[1]).expand_as(masked)
    begins = masked & ~F.pad(masked, (1, 0))[:, :-1]
    start = torch.where(begins, position, 0).cummax(1).values
    run = begins.int().cumsum(1)
    length = ((run[:, :, None] == run[:, None]) & masked[:, None]).sum(-1)
    frames = real.sum(1, keepdim=True)
    low = least(length, frames)
    chance = torch.rand(masked.shape, generator=generator).gather(1, at(start, masked))
    shift = low + (chance * most(length, frames, low).clamp(min=1)).long()
    return torch.where(where(masked) & (frames > 1), around(position + shift, frames), position)


def _any_frame(masked, real, *, generator):
    """For each hidden frame any frame of the clip."""
    position = torch.arange(masked.shape[1]).expand_as(masked)
    drawn = (torch.rand(masked.shape, generator=generator) * real.sum(1, keepdim=True)).long()
    return torch.where(masked, drawn, position)


def _always_the_next(masked, real, *, generator):
    return _shown(masked, real, generator=generator, most=lambda length, frames, least: torch.ones_like(length))


def _batch_length(masked, real, *, generator):
    return imposters(masked, torch.ones_like(real), generator=generator)


RIGHT = {  # right answers that are written in another way than the library's
    "modality_dropout": _drop,
    "masked_multimodal_cluster": _multimodal,
    "imposters": _shown,
}

MISTAKES = {
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
        "The same seed must give the same result": {"torch's own generator": from_global_state(modality_dropout)},
        "Another seed must give another result": {"a seed of its own": from_own_seed(modality_dropout)},
        "It must be boolean": {"zeros and ones": then(modality_dropout, lambda y: tuple(x.float() for x in y))},
        "It must return audio_kept and video_kept": {"one tensor": then(modality_dropout, lambda y: torch.stack(y))},
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
        "A gradient must flow from the result": {"no gradient": detached(masked_multimodal_cluster)},
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
            "repeated at the end": partial(_shown, around=lambda position, frames: torch.minimum(position, frames - 1)),
        },
        "some lie behind its end": {
            "beyond the end": partial(_shown, around=lambda position, frames: position.clamp(max=19)),
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
        "The same seed must give the same result": {"torch's own generator": from_global_state(imposters)},
        "It must hold whole numbers": {"shares": then(imposters, lambda y: y / 1.0)},
    },
}
