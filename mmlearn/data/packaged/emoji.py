"""``emoji``: real drawings of 1,644 concepts in six styles, with their names and keywords in 30 languages.

The splits answer two questions. Is the style known? ``train`` has Noto, Noto v1 and Twemoji; the unseen styles are the
two Fluents, held out together because they are the same drawings, and OpenMoji, which is line art under a share-alike
licence, and so in an archive and a class of its own. With ``hold_out=()`` all five styles are to train on, and
OpenMoji alone is unseen. Is the concept known? 200 concepts are held out, the same in every style and language.

Concepts that differ little are held out together or not at all. They share their English name up to a colon ("kiss:
man, man"), without the words for who it is ("woman farmer", "farmer"), and all clock faces count as one. Groups are
taken in the order of a hash of that name, each that still fits, until there are 200 concepts.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from mmlearn.data.hashing import stream
from mmlearn.data.packaged.archives import images, read_json
from mmlearn.suggestions import suggest

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

    ``hold_out`` are the unseen styles, and all others are known: other splits than these, so that what was trained with
    one ``hold_out`` is tested with the same. ``styles`` narrows a split to some of its styles. ``size`` is in pixels;
    the pictures are stored at 64, and stand on light grey, 0.8. A concept without a name in ``language`` is left out
    (three languages lack up to three).

    Raises ``ValueError`` for an unknown split, language or style, one of the two Fluents held out alone, a split of
    unseen styles where none is held out, a size below 1, and a damaged archive; ``FileNotFoundError`` for a missing
    one.
    """

    name, disk = "emoji", "8 MB"
    licence = "Apache-2.0, CC-BY-4.0, MIT, Unicode-3.0 (by style)"
    shows = "1,644 concepts in 5 drawing styles, with names and keywords in 30 languages"
    evaluated_on = "unseen-style"
    parts: ClassVar = {  # split → (styles, whether its concepts are the held-out ones)
        "train": (KNOWN, False),
        "unseen-style": (FLUENT, False),
        "unseen-concept": (KNOWN, True),
        "unseen-both": (FLUENT, True),
    }
    splits = (*parts,)

    def __init__(
        self,
        split: str = "train",
        *,
        language: str = "en",
        size: int = STORED,
        styles: Sequence[str] | None = None,
        hold_out: Sequence[str] = FLUENT,
    ):
        if split not in self.splits:
            raise ValueError(f"{self.name} has no split {split!r}; {suggest(split, self.splits)}.")
        names = read_json("emoji", "names.json.gz")  # language → code points → name and keywords
        if language not in names:
            raise ValueError(f"{self.name} has no names in {language!r}; {suggest(language, names)}.")
        choice, unseen = self.parts[split]
        choice = {KNOWN: _known(hold_out), FLUENT: tuple(hold_out)}.get(choice, choice)
        if not choice:
            raise ValueError(
                f"No style is held out, so that {split!r} of {self.name} is empty; load emoji-openmoji, or hold_out "
                "others."
            )
        styles = choice if styles is None else tuple(dict.fromkeys(styles))
        if not styles or not set(styles) <= set(choice):
            raise ValueError(f"Split {split!r} of {self.name} has the styles {', '.join(choice)}, not {list(styles)}.")
        self.split, self.language, self.size, self.styles = split, language, size, styles
        self._names, self._images, hidden = names[language], images(self.name, size), held_out()
        self._categories = read_json("emoji", "concepts.json")  # by code points, in Unicode's order of categories
        self.entries = [  # (style, concept) of each sample
            (style, concept)
            for style in styles
            for concept in self._categories
            if concept in self._names and (concept in hidden) == unseen and f"{style}/{concept}" in self._images
        ]

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def captions(self) -> list[str]:
        """The caption of each sample, without its picture."""
        return [self._names[concept]["name"] for _, concept in self.entries]

    def __getitem__(self, index: int) -> EmojiSample:
        style, concept = self.entries[index]
        named, image = self._names[concept], self._images[f"{style}/{concept}"]
        return EmojiSample(
            image, named["name"], concept, style, tuple(named["keywords"]), category=self._categories[concept]
        )


class OpenMoji(Emoji):
    """The share-alike style, for testing only: like :class:`Emoji`, without the splits to train on."""

    name, disk, licence = "emoji-openmoji", "1 MB", "CC-BY-SA-4.0"
    shows = "the same concepts as line art: the hardest style"
    parts: ClassVar = {"unseen-style": (OPENMOJI, False), "unseen-both": (OPENMOJI, True)}
    splits = (*parts,)

    def __init__(self, split: str = "unseen-style", **options: Any):
        super().__init__(split, **options)


def _known(hold_out: Sequence[str]) -> tuple[str, ...]:
    """The styles to train on where these are held out."""
    if strange := [style for style in hold_out if style not in KNOWN + FLUENT]:
        raise ValueError(f"emoji has no style {strange[0]!r} to hold out; {suggest(strange[0], KNOWN + FLUENT)}.")
    if len(set(hold_out) & set(FLUENT)) == 1:
        raise ValueError(f"{' and '.join(FLUENT)} are the same drawings: hold out both or neither.")
    if not (known := tuple(style for style in KNOWN + FLUENT if style not in hold_out)):
        raise ValueError("All styles of emoji are held out, so that none is left to train on.")
    return known


@cache
def held_out() -> frozenset[str]:
    """The 200 concepts that are in no sample of ``train`` and ``unseen-style``, as code points."""
    groups = defaultdict(list)
    for concept, named in read_json("emoji", "names.json.gz")["en"].items():
        groups[_group(named["name"])].append(concept)
    chosen: list[str] = []
    for group in sorted(groups, key=lambda group: stream("emoji", group)):
        if len(chosen) + len(groups[group]) <= HELD_OUT:
            chosen += groups[group]
    return frozenset(chosen)


def _group(name: str) -> str:
    """What the English names of concepts that differ little have in common."""
    return " ".join(WHO.sub("", CLOCK.sub("clock", name.split(":")[0])).split())


def emoji_texts(language: str = "en", *, unseen: bool = False) -> tuple[list[str], list[str]]:
    """Name and keywords of each concept as a text, such as ``ox: animal, bull``, and the category that it is of.

    ``unseen`` takes the held-out concepts instead of the others. Raises ``ValueError`` for an unknown language.
    """
    names, categories = read_json("emoji", "names.json.gz"), read_json("emoji", "concepts.json")
    if language not in names:
        raise ValueError(f"emoji has no names in {language!r}; {suggest(language, names)}.")
    named = {concept: names[language][concept] for concept in categories if concept in names[language]}
    kept = [concept for concept in named if (concept in held_out()) == unseen]
    return [as_text(named[concept]) for concept in kept], [categories[concept] for concept in kept]


def as_text(named: dict[str, Any]) -> str:
    """The name of a concept and, where it has some, its keywords."""
    return ": ".join(filter(None, (named["name"], ", ".join(named["keywords"]))))
