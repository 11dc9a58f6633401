"""``stamps``: 951 real pictures with captions in 55 languages, six of them also spoken, and sound effects.

The pictures are Tux Paint's stamps, about half of them photographs cut out of their ground. Each language is spoken by
one or a few people, so that no split holds out a speaker; leaving out a language does.

No caption is in two splits, in any language, and captions that differ little are in one split as well: those that are
equal in English without articles, amounts, numbers and what follows the first sentence. Such groups are taken in the
order of a hash, each that still fits, until ``test`` and ``val`` are full.
"""

import gzip
import io
import json
import re
import unicodedata
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from jaxtyping import Float, Int16, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from mmlearn.data.hashing import stream
from mmlearn.data.packaged.archives import reading
from mmlearn.data.read.pictures import read_picture
from mmlearn.data.read.sound import read_sound
from mmlearn.names import choices

SPOKEN = ("bg", "ca", "es", "fr", "ro", "ru")
SPLITS = ("train", "val", "test")
SHARES = {"test": 0.15, "val": 0.1}  # of the stamps, at most
STORED = 64  # pixels
LOUDEST = 32767  # of 16 bits
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

    ``size`` is in pixels; the pictures are stored at 64, and stand on light grey, 0.8. With ``speech``, a stamp whose
    caption nobody says in this language is left out.

    Raises ``ValueError`` for an unknown split or language, a language that is not spoken where ``speech`` is asked
    for, a size below 1, and a damaged archive; ``FileNotFoundError`` for a missing one.
    """

    def __init__(self, split: str = "train", *, language: str = "fr", size: int = STORED, speech: bool = False):
        if split not in SPLITS:
            raise ValueError(f"stamps has no split {split!r}; {choices(split, SPLITS)}.")
        if language not in languages():
            raise ValueError(f"stamps has no captions in {language!r}; {choices(language, languages())}.")
        if speech and language not in SPOKEN:
            raise ValueError(f"Nobody says the captions in {language!r}; choose from {', '.join(SPOKEN)}.")
        if size < 1:
            raise ValueError(f"A picture is at least 1 pixel wide, got size {size}.")
        self.split, self.language, self.size = split, language, size
        self._spoken = _members(f"speech-{language}.zip") if language in SPOKEN else frozenset()
        self._sounding = _members("effects.zip")
        self.names = [  # the stamp of each sample
            name
            for name in _captions()[language]
            if _splits()[name] == split and (f"{name}.ogg" in self._spoken or not speech)
        ]
        self._pixels: dict[str, UInt8[Tensor, "3 size size"]] = {}
        self._sounds: dict[tuple[str, str], Int16[Tensor, " samples"]] = {}

    def __len__(self) -> int:
        return len(self.names)

    @property
    def captions(self) -> list[str]:
        """The caption of each sample, without its picture."""
        captions = _captions()[self.language]
        return [captions[name] for name in self.names]

    def translations(self, index: int) -> dict[str, str]:
        """The captions of a sample by language, English first."""
        name = self.names[index]
        return {language: of[name] for language, of in _captions().items() if name in of}

    def __getitem__(self, index: int) -> StampSample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[StampSample]:
        """Many samples at once. ``DataLoader`` calls this."""
        if wrong := [index for index in indices if not -len(self) <= index < len(self)]:
            raise IndexError(f"This split has {len(self)} samples; there is no sample {wrong[0]}.")
        return [self._sample(self.names[index]) for index in indices]

    def spoken(self, index: int) -> Float[Tensor, "samples"] | None:
        """The spoken caption of a sample, without its picture and its effect, which need not be decoded for it."""
        return self._speech(self.names[index])

    def _sample(self, name: str) -> StampSample:
        return StampSample(
            image=self._image(name),
            caption=_captions()[self.language][name],
            english=_captions()["en"][name],
            language=self.language,
            speech=self._speech(name),
            effect=self._sound("effects.zip", name) if f"{name}.ogg" in self._sounding else None,
            name=name,
            category=name.partition("/")[0],
        )

    def _speech(self, name: str) -> Float[Tensor, "samples"] | None:
        return self._sound(f"speech-{self.language}.zip", name) if f"{name}.ogg" in self._spoken else None

    def _image(self, name: str) -> Float[Tensor, "3 size size"]:
        if name not in self._pixels:
            with reading("stamps", "pictures.zip"):
                file = f"{name}.webp"
                picture = read_picture(_archive("pictures.zip").read(file), self.size, name=file)
            self._pixels[name] = (picture * 255).round().to(torch.uint8)
        return self._pixels[name].float().div_(255)

    def _sound(self, archive: str, name: str) -> Float[Tensor, "samples"]:
        if (archive, name) not in self._sounds:
            with reading("stamps", archive):
                file = f"{name}.ogg"
                wave = read_sound(_archive(archive).read(file), name=file, notes=[])
            self._sounds[archive, name] = (wave.clamp(-1, 1) * LOUDEST).round().to(torch.int16)
        return self._sounds[archive, name].float().div_(LOUDEST)


def languages() -> tuple[str, ...]:
    """The languages that have captions, English first; :data:`SPOKEN` lists those that are also spoken."""
    return tuple(_captions())


class _Plain(dict):
    """Code point → itself where it is part of a word, else a space; for ``str.translate``."""

    def __missing__(self, code: int) -> int | str:
        return self.setdefault(code, code if unicodedata.category(chr(code))[0] in "LMN" else " ")


PLAIN = _Plain()


@lru_cache
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
    return " ".join(caption.casefold().translate(PLAIN).split())


def _little(english: str) -> str:
    """What English captions that differ little have in common."""
    return _key(LITTLE.sub("", re.split(r"[.!?]\s|[—(]", english.casefold())[0]))


@lru_cache
def _captions() -> dict[str, dict[str, str]]:
    """Language → stamp → caption."""
    with reading("stamps", "captions.json.gz") as path:
        return json.loads(gzip.decompress(path.read_bytes()))


@lru_cache
def _members(archive: str) -> frozenset[str]:
    return frozenset(_archive(archive).namelist())


@lru_cache
def _archive(file: str) -> zipfile.ZipFile:
    """A zip, in memory: a file would share its position with the workers of a ``DataLoader``."""
    with reading("stamps", file) as path:
        return zipfile.ZipFile(io.BytesIO(path.read_bytes()))
