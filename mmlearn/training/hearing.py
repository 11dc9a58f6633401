"""Systems that hear: how they are fitted to sounds, what their batches hold, and how well they do."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from mmlearn.data.batches import Collate, fetch
from mmlearn.data.hashing import digest
from mmlearn.data.mel import HOP, LogMel
from mmlearn.data.sound_batches import SoundCollate, SpecAugmented, mel_statistics
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.evaluation import belongs, evaluating, first_seen, found_among_distractors
from mmlearn.layers import Config
from mmlearn.models.speech.encoder import mfcc, standardise
from mmlearn.objectives.clusters import cluster, nearest
from mmlearn.objectives.speech import code_perplexity
from mmlearn.training.feeding import FEEDS
from mmlearn.training.rows import Rows, most_common, ranking_rows

CLIPS = 256  # spread through the data, of which statistics and clusters are made
FRAMES = 20_000  # of them, at most, for the clusters


@dataclass(frozen=True)
class Heard:
    """What a run knows of the sounds that it learns from."""

    mean: float = 0.0  # of their log-mels
    std: float = 1.0
    words: tuple[str, ...] = ()  # that AST tells apart
    centroids: tuple[tuple[float, ...], ...] = ()  # of the cepstra by which HuBERT's frames are numbered

    def check(self, name: str, config: Config) -> None:
        """``ValueError`` where it is not what this system needs."""
        if name == "ast" and len(set(self.words)) != config.num_classes:
            raise ValueError(f"{len(set(self.words))} words do not fit {config.num_classes} classes.")
        centroids = torch.tensor(self.centroids)
        if name == "hubert" and not (centroids.shape == (config.clusters, 39) and centroids.isfinite().all()):
            raise ValueError(f"centroids are {config.clusters} rows of 39 finite numbers.")

    def like(self, other: "Heard") -> bool:
        """Whether both are of the same sounds, but for rounding."""
        mine, others = (torch.tensor([one.mean, one.std]) for one in (self, other))
        centroids = [torch.tensor(one.centroids) for one in (self, other)]
        same = self.words == other.words and centroids[0].shape == centroids[1].shape
        return same and torch.allclose(mine, others, atol=1e-3) and torch.allclose(*centroids, atol=1e-2)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Heard":
        """What :func:`dataclasses.asdict` made and JSON kept. ``ValueError`` and ``TypeError`` for anything else."""
        centroids = tuple(tuple(map(float, row)) for row in values["centroids"])
        if len({len(row) for row in centroids}) > 1:
            raise ValueError("centroids are of different lengths.")
        mean, std = float(values["mean"]), float(values["std"])
        if not (torch.tensor([mean, std]).isfinite().all() and std > 0):
            raise ValueError(f"mean and std of log-mels are finite, and std above 0, not {mean} and {std}.")
        return cls(mean, std, tuple(map(str, values["words"])), centroids)


def longest(config: Config) -> float | None:
    """How many seconds of a sound a system can take, where that is limited."""
    frames = getattr(config, "frames", None)
    return None if frames is None else frames * HOP


def sound_options(name: str, config: Config) -> dict[str, Any]:
    """What data is asked for a system that hears: sounds that it can take, and captions that somebody says."""
    return {"seconds": longest(config), "speech": True} if FEEDS[name].hears else {}


def fit_to_sounds(
    name: str, config: Config, data: Dataset, tokenizer: Tokenizer, captions: Sequence[str], seed: int
) -> tuple[Config, Heard]:
    """The configuration for these sounds and captions, and what has to be known of them.

    Raises ``ValueError`` where AST should tell captions apart of which hardly two are the same, and for fewer frames
    than HuBERT has clusters.
    """
    heard = Heard()
    if FEEDS[name].hears == "mel":
        heard = Heard(*mel_statistics(data, LogMel(config.mels), CLIPS))
    if name == "clap":
        text = dict(vocab_size=tokenizer.vocab_size, max_length=tokenizer.max_length, pad_token=tokenizer.pad_token)
        config = replace(config, **text)
    if name == "ast":
        if hasattr(data, "caption"):  # so that a rare word is not missed
            captions = [data.caption(index) for index in range(len(data))]
        words = tuple(getattr(data, "words", ()) or sorted(set(captions)))  # Speech Commands knows its own
        if not hasattr(data, "words") and not 2 <= len(words) <= len(captions) / 2:
            raise ValueError(
                f"ast tells captions apart, and these are {len(words)} different ones of {len(captions)}: use data "
                "where each is said often, or take clap."
            )
        config, heard = replace(config, num_classes=len(words)), replace(heard, words=words)
    if name == "hubert":
        samples = fetch(data, torch.linspace(0, len(data) - 1, min(CLIPS, len(data))).long().tolist())
        frames = torch.cat([mfcc(sample.waveform) for sample in samples])
        if len(frames) < config.clusters:
            raise ValueError(
                f"hubert numbers frames by {config.clusters} clusters, and these sounds have {len(frames)} frames: "
                "give more of them."
            )
        generator = torch.Generator().manual_seed(seed)
        frames = frames[torch.randperm(len(frames), generator=generator)[:FRAMES]]
        centroids = cluster(frames, config.clusters, generator=generator)
        heard = replace(heard, centroids=tuple(map(tuple, centroids.tolist())))
    return config, heard


def sound_collate(run: Any, *, mark_repeats: bool = False, augmented: bool = False) -> Collate:
    """The collation for a system that hears: log-mels, or waveforms; captions, words or clusters as it needs them.

    Raises ``ValueError`` where what should be ``augmented`` is a waveform, or is to be rebuilt.
    """
    heard, mel = run.heard, FEEDS[run.name].hears == "mel"
    if augmented and not mel:
        raise ValueError(f"{run.name} reads waveforms, and augmentation hides parts of log-mels: leave augment out.")
    if augmented and run.name == "decoar2":
        raise ValueError("decoar2 rebuilds log-mels, and augmentation would hide parts of them: leave augment out.")
    reads = run.name == "clap"
    collate = SoundCollate(
        run.tokenizer if reads else None,
        log_mel=LogMel(run.system.config.mels) if mel else None,
        mean=heard.mean,
        std=heard.std,
        words=heard.words or None,
        mark_repeats=mark_repeats and reads,
        seconds=longest(run.system.config),
        pictures=False,
    )
    if mel:
        return SpecAugmented(collate) if augmented else collate
    return Waveforms(collate, heard.centroids)


class Waveforms:
    """Another collation with each clip at mean 0 and variance 1, and with ``centroids`` the ``cluster`` of each frame.

    Source: Hsu et al. 2021 (HuBERT), section II-A.
    """

    def __init__(self, collate: Collate, centroids: Sequence[Sequence[float]] = ()):
        self.collate, self.centroids = collate, torch.tensor(centroids)

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        batch = self.collate(samples)
        batch["waveform"] = standardise(batch["waveform"], batch["waveform_mask"])
        if len(self.centroids):
            numbers = [nearest(mfcc(sample.waveform), self.centroids) for sample in samples]
            batch["cluster"] = pad_sequence(numbers, batch_first=True, padding_value=-100)
        return batch


# How well each does.


def _batches(run: Any, samples: Sequence[Any], size: int = 32) -> Iterator[dict[str, Tensor]]:
    """Some samples at a time on the system's own device, while it is in evaluation mode."""
    collate, device = sound_collate(run), next(run.system.parameters()).device
    with evaluating(run.system):
        for start in range(0, len(samples), size):
            yield {name: value.to(device) for name, value in collate(samples[start : start + size]).items()}


def _of_hidden(parts: Sequence[Tensor]) -> Tensor:
    """All hidden frames of all batches. ``ValueError`` where there is none."""
    joined = torch.cat(parts)
    if not len(joined):
        raise ValueError("These sounds are too short: none has more frames than one hidden span, so nothing is hidden.")
    return joined


def sound_retrieval_measures(run: Any, samples: Sequence[Any]) -> Rows:
    """How well sounds find their captions, and captions their sounds. A repeated one of either counts once.

    Raises ``ValueError`` for fewer than two different captions: there would be nothing to choose from.
    """
    sound, first = first_seen(digest(sample.waveform) for sample in samples)
    text, first_text = first_seen(sample.caption for sample in samples)
    if len(first_text) < 2:
        raise ValueError("Retrieval needs at least two different captions, and these sounds have one.")
    batches = _batches(run, [samples[i] for i in first])
    sounds = torch.cat([run.system.encode_audio(one["mel"], one["mel_mask"]) for one in batches])
    with evaluating(run.system):
        tokens = ([part.to(sounds.device) for part in run.tokenizer([samples[i].caption])] for i in first_text)
        texts = torch.cat([run.system.encode_text(*one) for one in tokens])
    cosine = (sounds @ texts.T).cpu()
    return ranking_rows("sound", cosine, cosine.T, belongs(sound, text))


def word_measures(run: Any, samples: Sequence[Any]) -> Rows:
    """How many sounds are called by their word; chance is to say the most common one each time.

    Raises ``ValueError`` for a caption that AST has not learned.
    """
    if unknown := {sample.caption for sample in samples} - {*run.heard.words}:
        raise ValueError(
            f"{min(unknown)!r} is none of the words that this ast learned: let a column split of captions.csv put some "
            "of each word into every part, or take another --split."
        )
    says, label = [], []
    for one in _batches(run, samples):
        says.append(run.system(one["mel"], one["mel_mask"]).logits.argmax(-1))
        label.append(one["label"])
    says, label = torch.cat(says).cpu(), torch.cat(label).cpu()
    return {"words told": {"obtained": float((says == label).float().mean()), "chance": most_common(label)}}


def contrast_measures(run: Any, samples: Sequence[Any]) -> Rows:
    """How often what was at a hidden frame is found among others of its clip, and how many codes are in use."""
    right, chance, used = [], [], []
    for one in _batches(run, samples):
        waveform, mask = one["waveform"], one["waveform_mask"]
        draws = run.system.draw(run.system.speech.frame_mask(waveform, mask))
        output = run.system(waveform, mask, draws.masked)
        found = found_among_distractors(output.context, output.target, output.codes, draws.distractor, draws.masked)
        right.append(found[0].float())
        chance.append(found[1])
        used.append(output.probability[draws.masked])
    right, chance = _of_hidden(right), torch.cat(chance)
    return {
        "hidden frames found": {"obtained": float(right.mean()), "chance": float(chance.mean())},
        f"perplexity of {run.system.config.entries} codes": _perplexity(used),
    }


def reconstruction_measures(run: Any, samples: Sequence[Any]) -> Rows:
    """How far hidden frames of the log-mel are from what was there; chance is to write the mean of all sounds."""
    off, blind, used = [], [], []
    for one in _batches(run, samples):
        mel, mask = one["mel"], one["mel_mask"]
        masked = run.system.draw(mask).masked
        output = run.system(mel, mask, masked)
        off.append((output.mel - mel).mT[masked].abs())
        blind.append(mel.mT[masked].abs())
        used.append(output.probability[masked])
    off, blind = _of_hidden(off), torch.cat(blind)
    return {
        "distance of hidden frames": {"obtained": float(off.mean()), "chance": float(blind.mean())},
        f"perplexity of {run.system.config.entries} codes": _perplexity(used),
    }


def cluster_measures(run: Any, samples: Sequence[Any]) -> Rows:
    """How many numbers of hidden frames are guessed; chance is to guess the most common one each time."""
    says, number = [], []
    for one in _batches(run, samples):
        waveform, mask = one["waveform"], one["waveform_mask"]
        masked = run.system.draw(run.system.speech.frame_mask(waveform, mask))
        says.append(run.system(waveform, mask, masked).cluster_logits[masked].argmax(-1))
        number.append(one["cluster"][masked])
    says, number = _of_hidden(says).cpu(), torch.cat(number).cpu()
    return {
        "hidden numbers guessed": {"obtained": float((says == number).float().mean()), "chance": most_common(number)}
    }


def _perplexity(probability: list[Tensor]) -> dict[str, float | None]:
    return {"obtained": float(code_perplexity(torch.cat(probability)).mean()), "chance": None}


SOUND_MEASURES: dict[str, Callable[[Any, Sequence[Any]], Rows]] = {
    "atc": sound_retrieval_measures,
    "classification": word_measures,
    "contrastive": contrast_measures,
    "reconstruction": reconstruction_measures,
    "cluster": cluster_measures,
}
