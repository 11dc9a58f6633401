"""``emoji``: real drawings of 1,644 concepts in six styles, with their names and keywords in 30 languages.

The splits answer two questions. Is the style known? ``train`` has Noto, Noto v1 and Twemoji; the unseen styles are the
two Fluents, held out together because they are the same drawings, and OpenMoji, which is line art under a share-alike
licence, and so in an archive and a class of its own. Is the concept known? 200 concepts are held out, the same in every
style and language.

Concepts that differ little are held out together or not at all. They share their English name up to a colon ("kiss:
man, man"), without the words for who it is ("woman farmer", "farmer"), and all clock faces count as one. Groups are
taken in the order of a hash of that name, each that still fits, until there are 200 concepts.
"""

import gzip
import io
import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from mmlearn.data.hashing import stream
from mmlearn.data.packaged.archives import reading
from mmlearn.data.read.pictures import read_picture
from mmlearn.names import choices

KNOWN, FLUENT, OPENMOJI = ("noto", "noto-v1", "twemoji"), ("fluent-flat", "fluent-3d"), ("openmoji",)
HELD_OUT = 200  # concepts
STORED = 64  # pixels
WHO = re.compile(r"\b(man|men|woman|women|person|people|boy|girl|child|adult|and)\b(?!’)")
CLOCK = re.compile(r"\S+( o’clock|-thirty)$")


@dataclass(frozen=True, eq=False)
class EmojiSample:
    """One drawing and what CLDR calls it.

    ``image`` is float32 (3, size, size) in [0, 1]; ``concept`` the code points in hexadecimal, such as ``1f600``;
    ``category`` the English name of Unicode's group.
    """

    image: Float[Tensor, "3 size size"] = field(repr=False)
    caption: str
    concept: str
    style: str
    keywords: tuple[str, ...]
    category: str


class Emoji(Dataset):
    """The pictures of a split, style by style, with captions in one language; decoded when first asked for, then kept.

    ``styles`` narrows a split to some of its styles. ``size`` is in pixels; the pictures are stored at 64, and stand on
    light grey, 0.8. A concept without a name in ``language`` is left out (three languages lack up to three).

    Raises ``ValueError`` for an unknown split, language or style, a size below 1, and a damaged archive;
    ``FileNotFoundError`` for a missing one.
    """

    archive = "emoji"
    evaluated_on = "unseen-style"
    splits: ClassVar = {  # name → (styles, whether its concepts are the held-out ones)
        "train": (KNOWN, False),
        "unseen-style": (FLUENT, False),
        "unseen-concept": (KNOWN, True),
        "unseen-both": (FLUENT, True),
    }

    def __init__(
        self, split: str = "train", *, language: str = "en", size: int = STORED, styles: Sequence[str] | None = None
    ):
        if split not in self.splits:
            raise ValueError(f"{self.archive} has no split {split!r}; {choices(split, self.splits)}.")
        if language not in _names():
            raise ValueError(f"{self.archive} has no names in {language!r}; {choices(language, _names())}.")
        if size < 1:
            raise ValueError(f"A picture is at least 1 pixel wide, got size {size}.")
        choice, unseen = self.splits[split]
        styles = choice if styles is None else tuple(dict.fromkeys(styles))
        if not styles or not set(styles) <= set(choice):
            raise ValueError(
                f"Split {split!r} of {self.archive} has the styles {', '.join(choice)}, not {list(styles)}."
            )
        self.split, self.language, self.size, self.styles = split, language, size, styles
        drawn, names, hidden = set(_pictures(self.archive).namelist()), _names()[language], held_out()
        self.pairs = [  # (style, concept) of each sample
            (style, concept)
            for style in styles
            for concept in _categories()
            if concept in names and (concept in hidden) == unseen and f"{style}/{concept}.webp" in drawn
        ]
        self._pixels = torch.empty(len(self.pairs), 3, size, size, dtype=torch.uint8)
        self._decoded = [False] * len(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def captions(self) -> list[str]:
        """The caption of each sample, without its picture."""
        names = _names()[self.language]
        return [names[concept]["name"] for _, concept in self.pairs]

    def __getitem__(self, index: int) -> EmojiSample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[EmojiSample]:
        """Many samples at once. ``DataLoader`` calls this."""
        if wrong := [index for index in indices if not -len(self) <= index < len(self)]:
            raise IndexError(f"This split has {len(self)} samples; there is no sample {wrong[0]}.")
        for index in indices:
            if not self._decoded[index]:
                self._pixels[index] = self._decode(*self.pairs[index])
                self._decoded[index] = True
        images = self._pixels[list(indices)].float().div_(255)
        return [self._sample(image, *self.pairs[index]) for image, index in zip(images, indices)]

    def _decode(self, style: str, concept: str) -> UInt8[Tensor, "3 size size"]:
        file = f"{style}/{concept}.webp"
        with reading(self.archive, "pictures.zip"):
            picture = read_picture(_pictures(self.archive).read(file), self.size, name=file)
        return (picture * 255).round().to(torch.uint8)

    def _sample(self, image: Tensor, style: str, concept: str) -> EmojiSample:
        named = _names()[self.language][concept]
        return EmojiSample(
            image, named["name"], concept, style, tuple(named["keywords"]), category=_categories()[concept]
        )


class OpenMoji(Emoji):
    """The share-alike style, for testing only: like :class:`Emoji`, without the splits to train on."""

    archive = "emoji-openmoji"
    splits: ClassVar = {"unseen-style": (OPENMOJI, False), "unseen-both": (OPENMOJI, True)}

    def __init__(self, split: str = "unseen-style", **options: Any):
        super().__init__(split, **options)


@lru_cache
def held_out() -> frozenset[str]:
    """The 200 concepts that are in no sample of ``train`` and ``unseen-style``, as code points."""
    groups = defaultdict(list)
    for concept, named in _names()["en"].items():
        groups[_group(named["name"])].append(concept)
    chosen: list[str] = []
    for group in sorted(groups, key=lambda group: stream("emoji", group)):
        if len(chosen) + len(groups[group]) <= HELD_OUT:
            chosen += groups[group]
    return frozenset(chosen)


def _group(name: str) -> str:
    """What the English names of concepts that differ little have in common."""
    return " ".join(WHO.sub("", CLOCK.sub("clock", name.split(":")[0])).split())


@lru_cache
def _names() -> dict[str, dict[str, dict[str, Any]]]:
    """Language → code points → ``name`` and ``keywords``."""
    with reading("emoji", "names.json.gz") as path:
        return json.loads(gzip.decompress(path.read_bytes()))


@lru_cache
def _categories() -> dict[str, str]:
    """Code points → category, in Unicode's order of categories."""
    with reading("emoji", "concepts.json") as path:
        return json.loads(path.read_bytes())


@lru_cache
def _pictures(archive: str) -> zipfile.ZipFile:
    """The archive's pictures, in memory: a file would share its position with the workers of a ``DataLoader``."""
    with reading(archive, "pictures.zip") as path:
        return zipfile.ZipFile(io.BytesIO(path.read_bytes()))
