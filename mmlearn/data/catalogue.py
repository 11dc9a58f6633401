"""The data sets by name, and folders of the user's own by what lies in them."""

import inspect
import os
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from torch.utils.data import Dataset

from mmlearn.suggestions import suggest


@cache
def data_sets(apart: bool = True) -> dict[str, type[Dataset]]:
    """The data sets by name: every class in a module of ``synthetic`` or ``packaged`` that says what it ``shows``.

    Such a class also has a ``name``, its ``splits``, a ``licence``, and as ``disk`` how much room it takes. One that is
    installed apart says so, comes last, and is left out where ``apart`` is False.
    """
    found = []
    for package in ("synthetic", "packaged"):
        folder = import_module(f"mmlearn.data.{package}")
        modules = [import_module(f"{folder.__name__}.{each.name}") for each in iter_modules(folder.__path__)]
        classes = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
        found += sorted((each for each in classes if "shows" in vars(each)), key=lambda each: each.name)
    inside = [each for each in found if not hasattr(each, "apart")]
    return {each.name: each for each in inside + [each for each in found if apart and each not in inside]}


def load(name: str | Path, split: str = "train", *, as_before: dict[str, Any] | None = None, **options: Any) -> Dataset:
    """A data set by its name, or a folder by its path: with captions, or as COCO, WebDataset or Speech Commands come.

    ``options`` go to the data set, such as ``size`` or ``language``. A folder has the very same samples again if it
    gets ``as_before`` what its ``kept()`` said. Raises ``ValueError`` for a name that is neither, and whatever the data
    set says of its own options.
    """
    loader, first = _find(name)
    has = options_of(name)
    if unknown := [option for option in options if option not in has]:
        raise ValueError(f"{name} has no option {unknown[0]!r}; {suggest(unknown[0], has)}.")
    return loader(*first, split, **options, **({"as_before": as_before} if as_before else {}))


def options_of(name: str | Path) -> list[str]:
    """What may be set of a data set, such as ``size``. Raises ``ValueError`` for a name that is none."""
    loader, _ = _find(name)
    found: set[str] = set()
    for part in loader.__mro__:
        signature = inspect.signature(part.__init__).parameters.values()
        found |= {item.name for item in signature if item.kind is item.KEYWORD_ONLY}
        if not any(item.kind is item.VAR_KEYWORD for item in signature):  # what its parents have is not handed on
            break
    return sorted(found - {"as_before"})  # which load itself takes


def held_out(name: str | Path) -> str:
    """The split to evaluate on: the one that the data set says, or test. Raises ``ValueError`` as :func:`load` does."""
    loader, _ = _find(name)
    return getattr(loader, "evaluated_on", "test")


def is_endless(name: str | Path) -> bool:
    """Whether a data set is made as it goes, so that any number of its samples can be had."""
    loader, _ = _find(name)
    return getattr(loader, "endless", False)


def given_options(
    name: str | Path, *, language: str | None = None, skip_bad: bool = False, **wanted: Any
) -> dict[str, Any]:
    """Options for :func:`load`, less those that are not asked for.

    ``wanted`` are what a system's fields ask for, such as ``size``, ``seconds`` or ``speech``, and ``boxes`` what
    measures do: only data sets that have an option get it, and ``seconds`` only folders, because what is made rather
    than read is as long as it is.
    """
    if str(name) in data_sets():
        wanted.pop("seconds", None)
    has = options_of(name)
    options = {option: value for option, value in wanted.items() if option in has}
    options |= {"language": language, "skip_bad": skip_bad}
    options = {option: value for option, value in options.items() if value}
    if other := [option for option in options if option not in has]:  # of all, only these two can be typed
        raise ValueError(f"{name} has no option {other[0]!r}: leave it out.")
    return options


def _find(name: str | Path) -> tuple[Callable[..., Dataset], tuple]:
    """What makes a data set, and what it is given before the split."""
    known = data_sets()
    if str(name) in known:
        return known[str(name)], ()
    if os.path.isdir(name):
        return _reader(name), (name,)
    if "{" in str(name):
        raise ValueError(f"{str(name)!r} is a pattern of shards, which are read as a stream: add --stream exact.")
    raise ValueError(f"There is no data set and no folder {str(name)!r}; {suggest(str(name), known)}.")


def _reader(folder: str | Path) -> type[Dataset]:
    """What reads a folder."""
    from mmlearn.data.readers.captions import has_captions
    from mmlearn.data.readers.coco import CocoFolder, coco_captions
    from mmlearn.data.readers.folder import Folder
    from mmlearn.data.readers.shards import ShardFolder, tars
    from mmlearn.data.readers.speech_commands import SpeechCommands, speech_commands_folder

    if speech_commands_folder(folder):
        return SpeechCommands
    if has_captions(folder):
        return Folder
    if coco_captions(folder):
        return CocoFolder
    return ShardFolder if tars(folder) else Folder
