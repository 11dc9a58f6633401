"""Spoken captions of ``stamps`` as log-mels, with their texts in letters that six languages share.

To CTC a text is letters. All languages share 26 of them: accents are left out, and Cyrillic is written in Latin
letters, as on a passport, so that what is learned of one language's sounds can be of use in another.
"""

import itertools
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmlearn.data.batches import GeneratedBatches
from mmlearn.data.feature_cache import cached_features
from mmlearn.data.fields.sounds import pad_waveforms
from mmlearn.data.mel import LogMel, spec_augment
from mmlearn.data.packaged.archives import ARCHIVES
from mmlearn.data.packaged.stamps import Stamps
from mmlearn.data.speech_features import standardise
from mmlearn.objectives.clusters import nearest
from mmlearn.objectives.masked import IGNORED
from mmlearn.objectives.speech import mask_spans

LATIN = "аa бb вv гg дd еe жzh зz иi йi кk лl мm нn оo пp рr сs тt уu фf хh цts чch шsh щsht ъa ыi ь эe юiu яia ёio"
CYRILLIC = {pair[0]: pair[1:] for pair in LATIN.split()}
LETTERS = " abcdefghijklmnopqrstuvwxyz0123456789"  # token 0 is the blank, so letter i is token i + 1
VOCAB_SIZE = len(LETTERS) + 1
NAMES = {"bg": "Bulgarian", "ca": "Catalan", "es": "Spanish", "fr": "French", "ro": "Romanian", "ru": "Russian"}
MELS = 40
WINDOW, HOP = 400, 320  # samples, of the frames that wav2vec 2.0 and HuBERT make of a waveform


class SpokenCaption(NamedTuple):
    """Somebody says a caption."""

    mel: Float[Tensor, "mels s"]  # 100 frames a second, each band at mean 0 and variance 1 over the clip
    text: str  # in letters; empty where the caption has none of them
    name: str  # of the stamp
    language: str
    waveform: Float[Tensor, "samples"] | None = None  # at mean 0 and variance 1, where it was asked for
    labels: Int[Tensor, "s"] | None = None  # a token for each frame of the log-mel, where somebody gave them


def spell(caption: str) -> str:
    """A caption in :data:`LETTERS`: lower case, Cyrillic in Latin letters, without accents and punctuation."""
    whole = unicodedata.normalize("NFC", caption.casefold())  # й is one letter, and not и with an accent
    latin = "".join(CYRILLIC.get(letter, letter) for letter in whole)
    plain = (letter for letter in unicodedata.normalize("NFKD", latin) if not unicodedata.combining(letter))
    return " ".join("".join(letter if letter in LETTERS else " " for letter in plain).split())


def spoken_captions(
    split: str,
    language: str,
    *,
    count: int | None = None,
    longest: int = 300,
    mels: int = MELS,
    waveforms: bool = False,
) -> list[SpokenCaption]:
    """The spoken captions of a split, or the first ``count`` of them, without those of more than ``longest`` frames.

    With ``waveforms`` they keep these as well, for systems that hear no log-mels. Log-mels are kept on disk
    (:mod:`mmlearn.data.feature_cache`), so that they are made once. Raises ``ValueError`` as
    :class:`~mmlearn.data.packaged.stamps.Stamps` does.
    """
    data = Stamps(split, language=language, speech=True, size=8)
    count = len(data) if count is None else min(count, len(data))

    def listen() -> dict[str, Tensor]:
        log_mel = LogMel(mels)
        with ThreadPoolExecutor(2) as pool:
            spectra = [log_mel(wave[None])[0][0] for wave in pool.map(data.spoken, range(count))]
        return {"mel": torch.cat(spectra, 1).half(), "frames": torch.tensor([mel.shape[1] for mel in spectra])}

    manifest = (ARCHIVES / "stamps" / "manifest.json").read_text(encoding="utf-8")  # holds the hash of every archive
    kept, clips = cached_features(listen, manifest, f"log-mel {mels}", split, language, count), []
    spectra = kept["mel"].float().split(kept["frames"].tolist(), 1)
    for i, (mel, (spoken_in, name), caption) in enumerate(zip(spectra, data.entries, data.captions)):
        if mel.shape[1] <= longest:
            mel = (mel - mel.mean(1, keepdim=True)) / (mel.std(1, keepdim=True) + 1e-3)
            waveform = standardise(data.spoken(i)[None])[0] if waveforms else None
            clips.append(SpokenCaption(mel, spell(caption), name, spoken_in, waveform))
    return clips


def to_tokens(text: str) -> Int[Tensor, "t"]:
    """The tokens of a text in :data:`LETTERS`. ``ValueError`` for any other letter."""
    return torch.tensor([LETTERS.index(letter) + 1 for letter in text], dtype=torch.long)


def to_letters(tokens: Int[Tensor, "t"]) -> str:
    """The text of these tokens, none of which is the blank."""
    return "".join(LETTERS[token - 1] for token in tokens.tolist())


def fits(clip: SpokenCaption, stride: int = 3) -> bool:
    """Whether the clip, of which every ``stride``-th frame says a letter, is long enough to say its text.

    CTC needs a frame for each letter and one more between two that are alike. A few captions are read only in part, so
    a tenth more is asked for; a clip without letters does not fit either.
    """
    repeats = sum(one == other for one, other in itertools.pairwise(clip.text))
    return bool(clip.text) and 1.1 * len(clip.text) + repeats < clip.mel.shape[1] / stride


def one_after_the_other(
    one: SpokenCaption, two: SpokenCaption, pause: int
) -> tuple[SpokenCaption, list[tuple[int, int]]]:
    """Two recordings as one, with so many frames of silence between them, and the frames in which each of them sounds.

    Silence is the quietest frame of the first. Where both have labels, the pause has that of the space.
    """
    first, last = one.mel.shape[1], two.mel.shape[1]
    mel = torch.cat([one.mel, _quiet(one.mel).expand(-1, pause), two.mel], 1)
    labels = None
    if one.labels is not None and two.labels is not None:
        labels = torch.cat([one.labels, to_tokens(" ").expand(pause), two.labels])
    clip = SpokenCaption(mel, f"{one.text} {two.text}", f"{one.name} {two.name}", one.language, labels=labels)
    return clip, [(0, first), (first + pause, first + pause + last)]


def silenced(clip: SpokenCaption, span: tuple[int, int]) -> Float[Tensor, "mels s"]:
    """The log-mel, with silence from the first frame of ``span`` up to the last: the clip's own quietest frame."""
    mel = clip.mel.clone()
    mel[:, slice(*span)] = _quiet(clip.mel)
    return mel


def _quiet(mel: Float[Tensor, "mels s"]) -> Float[Tensor, "mels 1"]:
    return mel[:, mel.mean(0).argmin(), None]


# Batches.


def padded_mels(clips: Sequence[SpokenCaption]) -> dict[str, Tensor]:
    """``mel`` (b, mels, s), padded with 0, and ``mel_mask`` (b, s), True where a frame is real."""
    frames = frames_of(clips)
    mel = pad_sequence([clip.mel.T for clip in clips], batch_first=True).mT
    return {"mel": mel, "mel_mask": torch.arange(mel.shape[2]) < frames[:, None]}


def padded_waveforms(clips: Sequence[SpokenCaption]) -> dict[str, Tensor]:
    """``waveform`` (b, samples), padded with 0, and ``waveform_mask``, True where a sample is real."""
    return dict(zip(("waveform", "waveform_mask"), pad_waveforms([clip.waveform for clip in clips])))


def spelt_batch(clips: Sequence[SpokenCaption]) -> dict[str, Tensor]:
    """What is heard with the ``tokens`` (b, t) of the texts, 0 where ``mask`` is False.

    It is heard as :func:`padded_waveforms` where clips have one, else as :func:`padded_mels`. Where clips have
    ``labels``, these come as well (b, s), -100 in padding.
    """
    tokens = pad_sequence([to_tokens(clip.text) for clip in clips], batch_first=True)
    heard = padded_mels(clips) if clips[0].waveform is None else padded_waveforms(clips)
    batch = heard | {"tokens": tokens, "mask": tokens > 0}
    labels = [clip.labels for clip in clips if clip.labels is not None]
    if len(labels) == len(clips):
        batch["labels"] = pad_sequence(labels, batch_first=True, padding_value=IGNORED)
    return batch


def varied_batch(batch: dict[str, Tensor], generator: torch.Generator, *, longest: int = 420) -> dict[str, Tensor]:
    """A :func:`spelt_batch` of log-mels faster or slower, by 0.9 to 1.2 in length, with bands and moments hidden.

    A few recordings are so heard in many ways. What is hidden becomes 0, by
    :func:`~mmlearn.data.mel.spec_augment`; labels, where there are any, are stretched as the log-mels are.
    """
    factor = 0.9 + 0.3 * torch.rand((), generator=generator).item()
    length = min(round(batch["mel"].shape[2] * factor), longest)
    mel = F.interpolate(batch["mel"], length, mode="linear")
    names = [name for name in ("mel_mask", "labels") if name in batch]
    by_frame = {name: F.interpolate(batch[name][:, None].float(), length)[:, 0].to(batch[name].dtype) for name in names}
    mel = spec_augment(mel, by_frame["mel_mask"], generator, band_width=8, span_width=20)
    return batch | by_frame | {"mel": mel}


def hidden_batch(
    clips: Sequence[SpokenCaption],
    centroids: Float[Tensor, "clusters mels"],
    generator: torch.Generator,
    stride: int = 3,
) -> dict[str, Tensor]:
    """:func:`padded_mels` for HuBERT's game: spans of 6 · ``stride`` frames show nothing.

    ``cluster`` (b, s / stride) is the number of the nearest centroid of every ``stride``-th frame, -100 in padding;
    ``masked`` is True where that frame is hidden. Clips that have a waveform are heard as :func:`padded_waveforms`, in
    frames of 20 ms and spans of ten of them, and the system hides them itself. Source: Hsu et al. 2021 (HuBERT),
    section II-B.
    """
    batch = padded_mels(clips)
    if clips[0].waveform is not None:
        heard = padded_waveforms(clips)
        real = heard["waveform_mask"].unfold(1, WINDOW, HOP).all(-1)
        masked = mask_spans(real, probability=0.08, length=10, generator=generator)
        spectra = batch["mel"][:, :, 1::2][:, :, : real.shape[1]].mT  # each near the middle of its frame
        return heard | {"cluster": nearest(spectra, centroids).masked_fill(~real, IGNORED), "masked": masked}
    real = batch["mel_mask"][:, ::stride]
    masked = mask_spans(real, probability=0.08, length=6, generator=generator)
    number = nearest(batch["mel"][:, :, ::stride].mT, centroids).masked_fill(~real, IGNORED)
    covered = masked.repeat_interleave(stride, 1)[:, : batch["mel"].shape[2]]
    return batch | {"mel": batch["mel"].masked_fill(covered[:, None], 0), "cluster": number, "masked": masked}


def frames_of(clips: Sequence[SpokenCaption]) -> Int[Tensor, "clips"]:
    """How many frames each clip has."""
    return torch.tensor([clip.mel.shape[1] for clip in clips])


def sizes_of(clips: Sequence[SpokenCaption]) -> Float[Tensor, "clips 2"]:
    """Frames and letters of each clip."""
    return torch.tensor([(clip.mel.shape[1], len(clip.text)) for clip in clips], dtype=torch.float32).view(-1, 2)


def groups_of_like_length(clips: Sequence[SpokenCaption], size: int) -> list[list[SpokenCaption]]:
    """All clips from the shortest to the longest, ``size`` at a time."""
    return [[clips[i] for i in part] for part in frames_of(clips).argsort().split(size)]


def batches_of_like_length(
    clips: Sequence[SpokenCaption], size: int, steps: int, generator: torch.Generator
) -> GeneratedBatches:
    """A :func:`spelt_batch` for each step, with little padding; each time through the clips, other batches."""
    kept: list[list[SpokenCaption]] = []
    length = frames_of(clips)
    while len(kept) < steps:
        order = (length * (1 + 0.1 * torch.rand(len(clips), generator=generator))).argsort().split(size)
        kept += [[clips[i] for i in order[j]] for j in torch.randperm(len(order), generator=generator)]
    return GeneratedBatches(steps, lambda step: spelt_batch(kept[step]))
