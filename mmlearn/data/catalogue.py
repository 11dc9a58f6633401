"""The data sets by name, and what a reader should know of each before using it."""

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from mmlearn.names import choices


@dataclass(frozen=True)
class Card:
    """What ``mmlearn data`` and the book say of a data set."""

    licence: str
    size: str  # on disk
    splits: tuple[str, ...]
    shows: str
    module: str
    loader: str


CARDS = {
    "scenes": Card(
        licence="Apache-2.0 (drawn by this package)",
        size="none: drawn on the fly",
        splits=("train", "val", "test", "composition"),
        shows="8 or 9 shapes on a grid, of which the caption names two; masks, boxes, links, graph, questions",
        module="mmlearn.data.made.scenes",
        loader="Scenes",
    ),
    "scenes-sound": Card(
        licence="Apache-2.0 (drawn by this package)",
        size="none: made on the fly",
        splits=("train", "val", "test", "composition"),
        shows="the same scenes; the two named objects sound, by turns or at once, each known by itself and in time",
        module="mmlearn.data.made.scene_sound",
        loader="SoundScenes",
    ),
    "scenes-video": Card(
        licence="Apache-2.0 (drawn by this package)",
        size="none: made on the fly",
        splits=("train", "val", "test", "composition"),
        shows="three shapes that move and collide, with a sound at each collision; who hits whom, and in what order",
        module="mmlearn.data.made.scene_video",
        loader="VideoScenes",
    ),
    "talking-lips": Card(
        licence="Apache-2.0 (drawn by this package)",
        size="none: made on the fly",
        splits=("train", "val", "test", "unseen-speaker"),
        shows="drawn mouths that speak syllables, of which eye and ear each tell a known part; a unit for each frame",
        module="mmlearn.data.made.talking_lips",
        loader="TalkingLips",
    ),
    "emoji": Card(
        licence="Apache-2.0, CC-BY-4.0, MIT, Unicode-3.0 (by style)",
        size="8 MB",
        splits=("train", "unseen-style", "unseen-concept", "unseen-both"),
        shows="1,644 concepts in 5 drawing styles, with names and keywords in 30 languages",
        module="mmlearn.data.packaged.emoji",
        loader="Emoji",
    ),
    "emoji-openmoji": Card(
        licence="CC-BY-SA-4.0",
        size="1 MB",
        splits=("unseen-style", "unseen-both"),
        shows="the same concepts as line art: the hardest style",
        module="mmlearn.data.packaged.emoji",
        loader="OpenMoji",
    ),
    "stamps": Card(
        licence="GPL-2.0-or-later; single items public domain, CC0, CC-BY, CC-BY-SA, CeCILL or GFDL besides",
        size="21 MB",
        splits=("train", "val", "test"),
        shows="951 pictures with captions in 55 languages, six of them also spoken by people, and 101 sound effects",
        module="mmlearn.data.packaged.stamps",
        loader="Stamps",
    ),
}
# Not part of this package: each says how to install it.
APART = {
    "easy-vqa": Card(
        licence="MIT",
        size="22 MB, installed apart: pip install 'mmlearn[vqa]'",
        splits=("train", "test"),
        shows="5,000 pictures of one shape with 48,248 questions and their answers, of which the captions are made",
        module="mmlearn.data.packaged.easy_vqa",
        loader="EasyVQA",
    ),
}


def load(name: str | Path, split: str = "train", **options: Any) -> Dataset:
    """A data set by its name, or a folder by its path: with captions, or as COCO, WebDataset or Speech Commands come.

    ``options`` go to the data set, such as ``size`` or ``language``. Raises ``ValueError`` for a name that is neither,
    and whatever the data set says of its own options.
    """
    loader, first = _find(name)
    has = options_of(name)
    if unknown := [option for option in options if option not in has]:
        raise ValueError(f"{name} has no option {unknown[0]!r}; {choices(unknown[0], has)}.")
    return loader(*first, split, **options)


def options_of(name: str | Path) -> list[str]:
    """What may be set of a data set, such as ``size``. Raises ``ValueError`` for a name that is none."""
    loader, _ = _find(name)
    signatures = [inspect.signature(part.__init__).parameters.values() for part in loader.__mro__]
    return sorted({item.name for items in signatures for item in items if item.kind is item.KEYWORD_ONLY})


def held_out(name: str | Path) -> str:
    """The split to evaluate on: the one that the data set says, or test. Raises ``ValueError`` as :func:`load` does."""
    loader, _ = _find(name)
    return getattr(loader, "evaluated_on", "test")


def is_endless(name: str | Path) -> bool:
    """Whether a data set is made as it goes, so that any number of its samples can be had."""
    loader, _ = _find(name)
    return getattr(loader, "endless", False)


def asked(name: str | Path, *, language: str | None = None, skip_bad: bool = False, **wanted: Any) -> dict[str, Any]:
    """Options for :func:`load`, less those that are not asked for.

    ``wanted`` are what a system's fields ask for, such as ``size``, ``seconds`` or ``speech``: only data sets that have
    an option get it, and ``seconds`` only folders, because what is made rather than read is as long as it is.
    """
    if str(name) in CARDS | APART:
        wanted.pop("seconds", None)
    has = options_of(name)
    options = {option: value for option, value in wanted.items() if option in has}
    options |= {"language": language, "skip_bad": skip_bad}
    return {option: value for option, value in options.items() if value}


def _find(name: str | Path) -> tuple[Callable[..., Dataset], tuple]:
    """What makes a data set, and what it is given before the split."""
    known = CARDS | APART
    if str(name) in known:
        return _loader(known[str(name)]), ()
    if os.path.isdir(name):
        return _folder_loader(name), (name,)
    raise ValueError(f"There is no data set and no folder {str(name)!r}; {choices(str(name), known)}.")


def _folder_loader(folder: str | Path) -> Callable[..., Dataset]:
    from mmlearn.data.read.captions import has_captions
    from mmlearn.data.read.coco import CocoFolder, coco_folder
    from mmlearn.data.read.folder import Folder
    from mmlearn.data.read.shards import ShardFolder, shard_folder
    from mmlearn.data.read.speech_commands import SpeechCommands, speech_commands_folder

    if speech_commands_folder(folder):
        return SpeechCommands
    if not has_captions(folder):
        if coco_folder(folder):
            return CocoFolder
        if shard_folder(folder):
            return ShardFolder
    return Folder


def _loader(card: Card) -> Callable[..., Dataset]:
    return getattr(import_module(card.module), card.loader)
