"""WebDataset shards on disk: tar files in which ``000001.jpg`` and ``000001.txt`` are one sample.

The shards are indexed once and read at random, so that an epoch has an order of its own and a stopped run goes on at
once with the very next batch. For more than an index can hold there is :mod:`mmlearn.data.read.stream`.
"""

import tarfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mmlearn.data.read.captions import SPLITS, checked, parsed, split_of
from mmlearn.data.read.files import Files, Part, inside
from mmlearn.data.read.pictures import SUFFIXES, ImageText, read_picture
from mmlearn.names import choices

TEXTS = ("txt", "text", "caption", "json")


class _Member(NamedTuple):
    shard: Path
    offset: int
    size: int
    suffix: str


_Sample = tuple[tuple[Path, str], dict[str, _Member]]  # its shard and its name, and its files by their kind


class Shards(Files):
    """Pictures with captions from WebDataset shards.

    ``pattern`` is a path with braces, such as ``shards/{00000..00009}.tar``, or a list of such. A caption is a ``.txt``
    file, or ``caption`` or ``text`` in a ``.json``. With ``skip_bad`` all samples are read at once, and what cannot be
    read is left out, whole shards as well; ``as_before`` is what :meth:`kept` said. Needs the ``scale`` extra. Raises
    ``FileNotFoundError`` for a missing shard and ``ValueError`` for a damaged one, or for none that holds a picture
    with a caption.
    """

    holds = "samples"
    split = "all"  # or one, of samples that are split by their names
    others = False  # whether there are samples of other splits

    def __init__(
        self,
        pattern: str | Path | list[str],
        *,
        size: int = 64,
        skip_bad: bool = False,
        as_before: dict[str, Any] | None = None,
    ):
        super().__init__(skip_bad, as_before)
        self.size = size
        shards = {str(shard): shard for shard in map(Path, expanded(pattern))}
        known = {key: sample for name, shard in shards.items() for key, sample in self._indexed(name, shard)}
        bad = self.unread(known, lambda *key: self._decoded(*known[key]))
        self.samples = [sample for key, sample in known.items() if key not in bad]
        if as_before:
            self.samples = self._with_lost(as_before["counts"], shards)
        if not self.samples and self.others:
            raise ValueError(f"There are too few samples to have some for {self.split}, in {pattern}.")
        if not self.samples:
            raise ValueError(f"No picture with a caption in {pattern}; a sample is NAME.jpg and NAME.txt or NAME.json.")
        self.counts = dict.fromkeys(as_before["counts"] if as_before else shards, 0)
        self.counts |= Counter(str(shard) for (shard, _), _ in self.samples)

    def _indexed(self, name: str, shard: Path) -> Iterator[tuple[tuple[str, str], _Sample]]:
        """Those samples of a shard that are wanted, and what each is known by."""
        from webdataset.tariterators import base_plus_ext

        found: dict[str, dict[str, _Member]] = {}
        try:
            for file, offset, length in members(shard):
                key, suffix = base_plus_ext(file)
                if key is not None:
                    member = _Member(shard, offset, length, suffix.lower())
                    found.setdefault(key, {})[kind_of(member.suffix)] = member
        except (OSError, ValueError) as error:
            self.left_out_row(error)
        for key, parts in found.items():
            if "image" in parts and "text" in parts:
                if self.split == "all" or split_of(key) == self.split:
                    yield (key, name), ((shard, key), parts)
                else:
                    self.others = True

    def _with_lost(self, counts: dict[str, int], shards: dict[str, Path]) -> list[_Sample]:
        """The samples, and in their places those that shards held when a run began and do not hold any more."""
        found: dict[str, list[_Sample]] = {name: [] for name in [*counts, *shards]}
        for sample in self.samples:
            found[str(sample[0][0])].append(sample)
        for name, count in counts.items():
            lost = range(len(found[name]) + 1, int(count) + 1)
            found[name] += [((Path(name), f"sample {number}"), {}) for number in lost]
        return [sample for samples in found.values() for sample in samples]

    def kept(self) -> dict[str, Any]:
        """What was left out at the start, and how many samples each shard has."""
        return super().kept() | {"counts": self.counts}

    def told(self) -> list[tuple[str, int]]:
        """How many samples each shard has."""
        return [(Path(name).name, count) for name, count in self.counts.items()]

    def parts(self) -> list[Part]:
        """The pictures and captions."""
        return [
            Part(shard, partial(self.sample, index), member.offset, member.size, key)
            for index, ((shard, key), parts) in enumerate(self.samples)
            for member in (parts.get(kind, _Member(shard, 0, 0, "")) for kind in ("image", "text"))
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def caption(self, index: int) -> str:
        """A caption without its picture."""
        return self.first_good(index, lambda index: self._caption(*self.samples[index]))

    def sample(self, index: int) -> ImageText:
        """A picture with its caption."""
        return self._decoded(*self.samples[index])

    def _caption(self, place: tuple[Path, str], parts: dict[str, _Member]) -> str:
        name = _name(*place)
        if not parts:
            raise ValueError(f"{name} is lost: its shard is cut off or gone.")
        return caption_in(_content(parts["text"]), parts["text"].suffix, name)

    def _decoded(self, place: tuple[Path, str], parts: dict[str, _Member]) -> ImageText:
        caption, name = self._caption(place, parts), _name(*place)
        return ImageText(read_picture(_content(parts["image"]), self.size, name=name), caption, name)


def _name(shard: Path, key: str) -> str:
    return f"{key} in {shard}"


class ShardFolder(Shards):
    """All shards of a folder, and of the folders in it.

    Where names begin with train, val or test, as in ``train-0001.tar`` or ``train/0001.tar``, these are the splits.
    Otherwise 80, 10 and 10 % of the samples go to each, by the name of a sample. Errors are those of :class:`Shards`.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str = "train",
        *,
        size: int = 64,
        skip_bad: bool = False,
        as_before: dict[str, Any] | None = None,
    ):
        if split not in SPLITS:
            raise ValueError(f"A folder has no split {split!r}; {choices(split, SPLITS)}.")
        shards = {path: path.relative_to(folder).as_posix() for path in tars(folder)}
        named = any(name.startswith(SPLITS[:3]) for name in shards.values())
        if named and split != "all":
            shards = {path: name for path, name in shards.items() if name.startswith(split)}
            if not shards:
                raise ValueError(f"{folder} has no shards of {split}, such as {split}-0001.tar.")
        self.split = "all" if named else split
        super().__init__([str(path) for path in shards], size=size, skip_bad=skip_bad, as_before=as_before)


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
    """The caption that a file holds. ``ValueError`` where that is none, or no JSON object as its name says."""
    try:
        text: Any = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: caption is not UTF-8 (byte {error.start}).") from error
    if suffix == "json":
        values = parsed(text, name)
        text = values.get("caption") or values.get("text")
    return checked(text, name)


def shard_folder(folder: str | Path) -> bool:
    """Whether there are tar files in this folder."""
    return bool(tars(folder))


def tars(folder: str | Path) -> list[Path]:
    """The tar files of a folder, and of the folders in it. ``ValueError`` for a link that leads out of it."""
    found = sorted([*Path(folder).glob("*.tar"), *Path(folder).glob("*/*.tar")])  # and no deeper: it may hold anything
    for path in found:
        inside(Path(folder), path.relative_to(folder).as_posix(), str(folder))
    return found


def members(shard: Path) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each file in a tar. Raises as :class:`Shards` does, after those that are whole."""
    if not shard.is_file():
        raise FileNotFoundError(f"There is no shard {shard}.")
    name = ""
    try:
        with tarfile.open(shard, "r:") as archive:
            for item in archive:
                name = item.name
                if item.isfile():
                    yield name, item.offset_data, item.size
            end = archive.offset  # of the last member, where tarfile also stops at a header that it cannot read
    except (tarfile.TarError, ValueError) as error:
        raise ValueError(f"{shard} is no whole, uncompressed tar file ({error}).") from error
    with shard.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            last = f" after {name}" if name else ""
            raise ValueError(f"{shard} is damaged or cut off{last}: its end is not marked.")


def _content(member: _Member) -> bytes:
    with member.shard.open("rb") as file:
        file.seek(member.offset)
        return file.read(member.size)
