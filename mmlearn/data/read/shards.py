"""WebDataset shards on disk: tar files in which ``000001.jpg`` and ``000001.txt`` are one sample.

The shards are indexed once and read at random, so that an epoch has an order of its own and a stopped run goes on at
once with the very next batch. For more than an index can hold there is :mod:`mmlearn.data.read.stream`.
"""

import json
import tarfile
from pathlib import Path
from typing import NamedTuple

from torch.utils.data import Dataset

from mmlearn.data.hashing import fingerprint
from mmlearn.data.read.captions import SPLITS, split_of
from mmlearn.data.read.files import inside
from mmlearn.data.read.pictures import SUFFIXES, ImageText, read_picture
from mmlearn.names import choices

TEXTS = ("txt", "text", "caption", "json")


class _Part(NamedTuple):
    shard: Path
    offset: int
    size: int
    suffix: str


class Shards(Dataset):
    """Pictures with captions from WebDataset shards.

    ``pattern`` is a path with braces, such as ``shards/{00000..00009}.tar``, or a list of such. A caption is a ``.txt``
    file, or ``caption`` or ``text`` in a ``.json``. Needs the ``scale`` extra. Raises ``FileNotFoundError`` for a
    missing shard and ``ValueError`` for a damaged one, or for none that holds a picture with a caption.
    """

    def __init__(self, pattern: str | Path | list[str], *, size: int = 64):
        urls = expanded(pattern)
        from webdataset.tariterators import base_plus_ext

        self.size = size
        found: dict[tuple[Path, str], dict[str, _Part]] = {}
        for shard in map(Path, urls):
            for name, offset, length in members(shard):
                key, suffix = base_plus_ext(name)
                if key is not None:
                    part = _Part(shard, offset, length, suffix.lower())
                    found.setdefault((shard, key), {})[kind_of(part.suffix)] = part
        self.samples = [(key, parts) for key, parts in found.items() if "image" in parts and "text" in parts]
        if not self.samples:
            raise ValueError(f"No picture with a caption in {pattern}; a sample is NAME.jpg and NAME.txt or NAME.json.")

    def __len__(self) -> int:
        return len(self.samples)

    def fingerprint(self) -> str:
        """Of the samples' names, their order, and what their files hold."""
        parts = [part for _, parts in self.samples for part in (parts["image"], parts["text"])]
        return fingerprint((key for (_, key), _ in self.samples), [(one.shard, one.offset, one.size) for one in parts])

    def caption(self, index: int) -> str:
        """A caption without its picture."""
        _, parts = self.samples[index]
        return caption_in(_read(parts["text"]), parts["text"].suffix, self._name(index))

    def _name(self, index: int) -> str:
        (shard, key), _ = self.samples[index]
        return f"{key} in {shard}"

    def __getitem__(self, index: int) -> ImageText:
        _, parts = self.samples[index]
        caption, name = self.caption(index), self._name(index)
        return ImageText(read_picture(_read(parts["image"]), self.size, name=name), caption, name)


class ShardFolder(Shards):
    """All shards of a folder, and of the folders in it.

    Where names begin with train, val or test, as in ``train-0001.tar`` or ``train/0001.tar``, these are the splits.
    Otherwise 80, 10 and 10 % of the samples go to each, by the name of a sample. Errors are those of :class:`Shards`.
    """

    def __init__(self, folder: str | Path, split: str = "train", *, size: int = 64):
        if split not in SPLITS:
            raise ValueError(f"A folder has no split {split!r}; {choices(split, SPLITS)}.")
        shards = {path: path.relative_to(folder).as_posix() for path in tars(folder)}
        named = any(name.startswith(SPLITS[:3]) for name in shards.values())
        if named and split != "all":
            shards = {path: name for path, name in shards.items() if name.startswith(split)}
            if not shards:
                raise ValueError(f"{folder} has no shards of {split}, such as {split}-0001.tar.")
        super().__init__([str(path) for path in shards], size=size)
        if not named and split != "all":
            self.samples = [sample for sample in self.samples if split_of(sample[0][1]) == split]
            if not self.samples:
                raise ValueError(f"{folder} has too few samples to have some for {split}.")


def expanded(pattern: str | Path | list[str]) -> list[str]:
    """Every shard of a pattern with braces, or of a list of such. ``ValueError`` without webdataset."""
    try:
        from webdataset.shardlists import expand_urls
    except ModuleNotFoundError as error:
        raise ValueError("WebDataset shards need webdataset: pip install 'mmlearn[scale]'.") from error
    return [url for item in (pattern if isinstance(pattern, list) else [str(pattern)]) for url in expand_urls(item)]


def kind_of(suffix: str) -> str:
    """Whether a file that ends so, in small letters, is the "image" or the "text" of a sample, or neither."""
    return "image" if f".{suffix}" in SUFFIXES else "text" if suffix in TEXTS else ""


def caption_in(content: bytes, suffix: str, name: str) -> str:
    """The caption that a file holds. ``ValueError`` where it is empty, or no JSON object as its name says."""
    text = content.decode("utf-8", errors="replace")
    if suffix == "json":
        try:
            values = json.loads(text)
            text = str(values.get("caption") or values.get("text") or "")
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{name} has no caption: its .json is no JSON object ({error}).") from error
    if not text.strip():
        raise ValueError(f"{name} has an empty caption.")
    return text.strip()


def shard_folder(folder: str | Path) -> bool:
    """Whether there are tar files in this folder."""
    return bool(tars(folder))


def tars(folder: str | Path) -> list[Path]:
    """The tar files of a folder, and of the folders in it. ``ValueError`` for a link that leads out of it."""
    found = sorted([*Path(folder).glob("*.tar"), *Path(folder).glob("*/*.tar")])  # and no deeper: it may hold anything
    for path in found:
        inside(Path(folder), path.relative_to(folder).as_posix(), str(folder))
    return found


def members(shard: Path) -> list[tuple[str, int, int]]:
    """Name, offset and size of each file in a tar. ``FileNotFoundError`` and ``ValueError`` as :class:`Shards` has."""
    if not shard.is_file():
        raise FileNotFoundError(f"There is no shard {shard}.")
    try:
        with tarfile.open(shard, "r:") as archive:
            members = [(item.name, item.offset_data, item.size) for item in archive if item.isfile()]
            end = archive.offset  # of the last member, where tarfile also stops at a header that it cannot read
    except (tarfile.TarError, ValueError) as error:
        raise ValueError(f"{shard} is no whole, uncompressed tar file ({error}).") from error
    with shard.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            last = f" after {members[-1][0]}" if members else ""
            raise ValueError(f"{shard} is damaged or cut off{last}: its end is not marked.")
    return members


def _read(part: _Part) -> bytes:
    with part.shard.open("rb") as file:
        file.seek(part.offset)
        return file.read(part.size)
