"""``stamps``: 951 real pictures with captions in 55 languages, six of them also spoken, and sound effects.

The pictures are Tux Paint's stamps, about half of them photographs cut out of their ground. Each language is spoken by
one or a few people, so that no split holds out a speaker; leaving out a language does.

No caption is in two splits, in any language, and captions that differ little are in one split as well: those that are
equal in English without articles, amounts, numbers and what follows the first sentence. Such groups are taken in the
order of a hash, each that still fits, until ``test`` and ``val`` are full.
"""

import re
import unicodedata
from dataclasses import dataclass, field
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from mmlearn.data.hashing import stream
from mmlearn.data.packaged.archives import Members, images, read_json
from mmlearn.data.readers.sound import read_sound
from mmlearn.suggestions import suggest

SPOKEN = ("bg", "ca", "es", "fr", "ro", "ru")
ALL = "all"  # languages
SPLITS = ("train", "val", "test")
SHARES = {"test": 0.15, "val": 0.1}  # of the stamps, at most
STORED = 64  # pixels
LITTLE = re.compile(r"^(a|an|the|some|two|another)\s((pair|bunch|cluster|head) of\s)?|\d+|(?<=\w\w)s\b")


@dataclass(frozen=True, eq=False)
class StampSample:
    """One picture, what it is called, and what it sounds like.

    ``image`` is float32 (3, size, size) in [0, 1]; ``caption`` is in ``language``, and ``english`` in English;
    ``speech``, somebody saying the caption, and ``effect``, the sound of what is shown, are float32 (samples,) at
    16 kHz in [-1, 1], or None; ``name`` is the stamp's, such as ``animals/mammals/dogs/dog``, and ``category`` its
    first part.
    """

    image: Float[Tensor, "3 size size"] = field(repr=False)
    caption: str
    english: str
    language: str
    speech: Float[Tensor, "samples"] | None = field(repr=False)
    effect: Float[Tensor, "its_samples"] | None = field(repr=False)
    name: str
    category: str

    @property
    def translation(self) -> str:
        """The English caption, by the name that translations have. Which word translates which is not known."""
        return self.english

    @property
    def waveform(self) -> Float[Tensor, "samples"] | None:
        """The speech, by the name that it has in batches."""
        return self.speech

    @property
    def source(self) -> str:
        """What it is called in messages."""
        return self.name

    @property
    def sounds(self) -> dict[str, Float[Tensor, "samples"]]:
        """What there is to hear."""
        sounds = {f"spoken ({self.language})": self.speech, "sound effect": self.effect}
        return {label: wave for label, wave in sounds.items() if wave is not None}


class Stamps(Dataset):
    """The stamps of a split that have a caption in ``language``; decoded when first asked for, then kept.

    With ``language="all"`` they come in every language, one after the other, so that a picture has up to 55 captions:
    a contrastive batch is better of one language. ``size`` is in pixels; the pictures are stored at 64, and stand on
    light grey, 0.8. With ``speech``, a stamp whose caption nobody says in this language is left out, and all languages
    are the six spoken ones.

    Raises ``ValueError`` for an unknown split or language, a language that is not spoken where ``speech`` is asked
    for, a size below 1, and a damaged archive; ``FileNotFoundError`` for a missing one.
    """

    name, disk, splits = "stamps", "21 MB", SPLITS
    licence = "GPL-2.0-or-later; single items public domain, CC0, CC-BY, CC-BY-SA, CeCILL or GFDL besides"
    shows = "951 pictures with captions in 55 languages, six of them also spoken by people, and 101 sound effects"

    def __init__(self, split: str = "train", *, language: str = "fr", size: int = STORED, speech: bool = False):
        if split not in SPLITS:
            raise ValueError(f"stamps has no split {split!r}; {suggest(split, SPLITS)}.")
        self._captions, of = _captions(), _splits()
        known = (*self._captions, ALL)
        if language not in known:
            raise ValueError(f"stamps has no captions in {language!r}; {suggest(language, known)}.")
        if speech and language not in (*SPOKEN, ALL):
            raise ValueError(f"Nobody says the captions in {language!r}; choose from {', '.join((*SPOKEN, ALL))}.")
        self.split, self.language, self.size = split, language, size
        self._images, self._effects = images("stamps", size), _sounds("effects.zip")
        several = (SPOKEN if speech else languages()) if language == ALL else (language,)
        self._speech = {each: _sounds(f"speech-{each}.zip") for each in several if each in SPOKEN}
        self.entries = [  # (language, stamp) of each sample
            (each, name)
            for each in several
            for name in self._captions[each]
            if of[name] == split and (not speech or name in self._speech[each])
        ]

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def names(self) -> list[str]:
        """The stamp of each sample."""
        return [name for _, name in self.entries]

    @property
    def captions(self) -> list[str]:
        """The caption of each sample, without its picture."""
        return [self._captions[language][name] for language, name in self.entries]

    def spoken(self, index: int) -> Float[Tensor, "samples"] | None:
        """The spoken caption of a sample, without its picture and its effect, which need not be decoded for it."""
        language, name = self.entries[index]
        return self._speech[language].get(name) if language in self._speech else None

    def __getitem__(self, index: int) -> StampSample:
        language, name = self.entries[index]
        return StampSample(
            image=self._images[name],
            caption=self._captions[language][name],
            english=self._captions["en"][name],
            language=language,
            speech=self.spoken(index),
            effect=self._effects.get(name),
            name=name,
            category=name.partition("/")[0],
        )


def _sounds(file: str) -> Members:
    return Members("stamps", file, _decode_sound, torch.int16)


def _decode_sound(content: bytes, name: str) -> Float[Tensor, "samples"]:
    return read_sound(content, name=name, notes=[])


def languages() -> tuple[str, ...]:
    """The languages that have captions, English first; :data:`SPOKEN` lists those that are also spoken."""
    return tuple(_captions())


@cache
def _splits() -> dict[str, str]:
    """Stamp → split."""
    groups = sorted(_groups(), key=lambda group: stream("stamps", min(group)))
    splits: dict[str, str] = {}
    for split, share in SHARES.items():
        room = int(share * len(_captions()["en"]))
        for group in groups:
            if group[0] not in splits and len(group) <= room:
                splits |= dict.fromkeys(group, split)
                room -= len(group)
    return dict.fromkeys(_captions()["en"], "train") | splits


def _groups() -> list[list[str]]:
    """The stamps, so that those that share a caption in any language are together, and those that differ little too."""
    keys = [{name: _key(caption) for name, caption in of.items()} for of in _captions().values()]
    keys.append({name: _little(caption) for name, caption in _captions()["en"].items()})
    group = {name: [name] for name in _captions()["en"]}
    for language in keys:
        first: dict[str, str] = {}
        for name, key in language.items():
            one, other = group[first.setdefault(key, name)], group[name]
            if one is not other:
                one += other
                group |= dict.fromkeys(other, one)
    return list({id(members): members for members in group.values()}.values())


def _key(caption: str) -> str:
    """A caption without case and punctuation, of any script."""
    return " ".join("".join(map(_plain, caption.casefold())).split())


@cache
def _plain(letter: str) -> str:
    """The letter where it is part of a word, else a space."""
    return letter if unicodedata.category(letter)[0] in "LMN" else " "


def _little(english: str) -> str:
    """What English captions that differ little have in common."""
    return _key(LITTLE.sub("", re.split(r"[.!?]\s|[—(]", english.casefold())[0]))


def _captions() -> dict[str, dict[str, str]]:
    """Language → stamp → caption."""
    return read_json("stamps", "captions.json.gz")
