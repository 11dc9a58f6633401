"""WebDataset shards on disk: tar files in which ``000001.jpg`` and ``000001.txt`` are one sample.

The shards are indexed once and read at random, so that an epoch has an order of its own and a stopped run goes on at
once with the very next batch. For more than an index can hold there is :mod:`mmlearn.data.readers.stream`.
"""

import io
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mmlearn.data.readers.captions import SPLITS, checked, parsed, split_of
from mmlearn.data.readers.files import EmptySplit, Files, Part, inside
from mmlearn.data.readers.images import SUFFIXES, ImageText, read_image
from mmlearn.suggestions import suggest

META = re.compile(r"__[^/]*__($|/)")  # files that are about a shard, which webdataset passes over
TEXTS = ("txt", "text", "caption", "json")
RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")  # of a pattern
MOST_SHARDS = 1_000_000
NO_SAMPLE = "No picture with a caption in {}; a sample is NAME.jpg and NAME.txt or NAME.json."


class Member(NamedTuple):
    """A file within a shard: the sample it is of, how its name ends, and where it stands."""

    key: str
    suffix: str
    shard: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Its content."""
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


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

    def __init__(self, pattern: str | Path | list[str], *, size: int = 64, **options: Any):
        super().__init__(**options)
        self.size = size
        shards = [*dict.fromkeys(str(Path(url)) for url in expanded(pattern))]
        found = {(key, shard): files for shard in shards for key, files in self._indexed(Path(shard)).items()}
        wanted = {key: files for key, files in found.items() if self.split in ("all", split_of(key[0]))}
        bad = self.unread(wanted, lambda key, shard: self._decoded(key, shard, wanted[key, shard]))
        self.samples = [(*key, files) for key, files in wanted.items() if key not in bad]
        before = self.as_before["counts"] if self.as_before else {}
        if before:
            self.samples = self._with_lost(before, shards)
        if not self.samples and found and not wanted:
            raise ValueError(f"There are too few samples to have some for {self.split}, in {pattern}.")
        if not self.samples:
            raise ValueError(NO_SAMPLE.format(pattern))
        self.counts = dict.fromkeys(before or shards, 0) | Counter(shard for _, shard, _ in self.samples)

    def _indexed(self, shard: Path) -> dict[str, dict[str, Member]]:
        """The files of each sample of a shard, by what they are, as far as the shard can be read."""
        found: dict[str, dict[str, Member]] = {}
        try:
            for member in members(shard):
                found.setdefault(member.key, {})[kind_of(member.suffix)] = member
        except (OSError, ValueError) as error:
            self.left_out_row(error)
        return {key: files for key, files in found.items() if {"image", "text"} <= files.keys()}

    def _with_lost(self, before: dict[str, int], shards: list[str]) -> list[tuple[str, str, dict[str, Member]]]:
        """The samples, and in their positions those that shards held when a run began and do not hold any more."""
        found: dict[str, list] = {shard: [] for shard in [*before, *shards]}
        for sample in self.samples:
            found[sample[1]].append(sample)
        for shard, count in before.items():
            found[shard] += [(f"sample {number}", shard, {}) for number in range(len(found[shard]) + 1, int(count) + 1)]
        return [sample for samples in found.values() for sample in samples]

    def kept(self) -> dict[str, Any]:
        return super().kept() | {"counts": self.counts}

    def told(self) -> list[tuple[str, int]]:
        return [(Path(shard).name, count) for shard, count in self.counts.items()]

    def parts(self) -> list[Part]:
        return [
            Part(Path(shard), partial(self.sample, index), file.offset if file else 0, file.size if file else 0, key)
            for index, (key, shard, files) in enumerate(self.samples)
            for file in (files.get("image"), files.get("text"))
        ]

    def caption(self, index: int) -> str:
        return self.first_good(index, lambda index: self._caption(*self.samples[index]))

    def sample(self, index: int) -> ImageText:
        return self._decoded(*self.samples[index])

    def _caption(self, key: str, shard: str, files: dict[str, Member]) -> str:
        if not files:
            raise ValueError(f"{key} in {shard} is lost: its shard is cut off or gone.")
        return caption_in(files["text"].read(), files["text"].suffix, f"{key} in {shard}")

    def _decoded(self, key: str, shard: str, files: dict[str, Member]) -> ImageText:
        caption, name = self._caption(key, shard, files), f"{key} in {shard}"
        return ImageText(read_image(files["image"].read(), self.size, name=name), caption, name)


class ShardFolder(Shards):
    """All shards of a folder, and of the folders in it.

    Where names begin with train, val or test, as in ``train-0001.tar`` or ``train/0001.tar``, these are the splits.
    Otherwise 80, 10 and 10 % of the samples go to each, by the name of a sample. Errors are those of :class:`Shards`.
    """

    def __init__(self, folder: str | Path, split: str = "train", **options: Any):
        if split not in SPLITS:
            raise ValueError(f"A folder has no split {split!r}; {suggest(split, SPLITS)}.")
        shards = tars(folder)
        if any(name.startswith(SPLITS[:3]) for name in shards):
            shards = {name: path for name, path in shards.items() if split == "all" or name.startswith(split)}
            if not shards:
                raise EmptySplit(f"{folder} has no shards of {split}, such as {split}-0001.tar.")
        else:
            self.split = split
        super().__init__(list(shards.values()), **options)


def expanded(pattern: str | Path | list[str]) -> list[str]:
    """Every shard of a pattern with braces, or of a list of such.

    ``ValueError`` for more than a million, which would fill the memory before one is read, and without webdataset.
    """
    try:
        from braceexpand import braceexpand
        from webdataset.shardlists import expand_urls
    except ModuleNotFoundError as error:
        raise ValueError(
            "WebDataset shards need webdataset; in the clone of mmlearn: pip install -e '.[scale]'."
        ) from error
    items = pattern if isinstance(pattern, list) else [str(pattern)]
    for item in items:
        wide = any(
            max(map(len, ends)) > 9 or abs(int(ends[1]) - int(ends[0])) >= MOST_SHARDS for ends in RANGE.findall(item)
        )
        if wide or 2 ** item.count("{") > MOST_SHARDS or any(islice(braceexpand(item), MOST_SHARDS, None)):
            raise ValueError(f"{item} names more than {MOST_SHARDS:,} shards: put more into each.")
    return [url for item in items for url in expand_urls(item)]


def kind_of(suffix: str) -> str:
    """Whether a file that ends so is the "image" or the "text" of a sample, or neither."""
    return "image" if f".{suffix.lower()}" in SUFFIXES else "text" if suffix.lower() in TEXTS else ""


def caption_in(content: bytes, suffix: str, name: str) -> str:
    """The caption that a file holds. ``ValueError`` where that is none, or no JSON object as its name says."""
    try:
        text: Any = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: caption is not UTF-8 (byte {error.start}).") from error
    if suffix.lower() == "json":
        values = parsed(text, name)
        text = values.get("caption") or values.get("text")
    return checked(text, name)


def tars(folder: str | Path) -> dict[str, str]:
    """The paths of a folder's tar files by their names in it. ``ValueError`` for a link that leads out of it."""
    found = sorted([*Path(folder).glob("*.tar"), *Path(folder).glob("*/*.tar")])  # and no deeper: it may hold anything
    names = {path.relative_to(folder).as_posix(): str(path) for path in found}
    for name in names:
        inside(Path(folder), name, str(folder))
    return names


def members(shard: Path) -> Iterator[Member]:
    """The pictures and captions in a tar, in order. Raises as :class:`Shards` does, after those that are whole."""
    from webdataset.tariterators import base_plus_ext

    if not shard.is_file():
        raise FileNotFoundError(f"There is no shard {shard}.")
    name = ""
    try:
        with tarfile.open(shard, "r:") as archive:
            for item in archive:
                name = item.name
                key, suffix = base_plus_ext(name)
                if item.isfile() and kind_of(suffix or "") and not META.match(name):
                    yield Member(key, suffix, shard, item.offset_data, item.size)
            end = archive.offset  # of the last member, where tarfile also stops at a header that it cannot read
    except (tarfile.TarError, ValueError) as error:
        raise ValueError(f"{shard} is no whole, uncompressed tar file ({error}).") from error
    with shard.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            last = f" after {name}" if name else ""
            raise ValueError(f"{shard} is damaged or cut off{last}: its end is not marked.")


def write_shards(folder: str | Path, samples: Iterable[Any], shards: int) -> list[Path]:
    """Write pictures with captions to ``shards`` tar files under ``folder``, in turn; returns their paths.

    Sample i is ``NAME.png`` and ``NAME.txt``, and has an ``image``, float (3, height, width) from 0 to 1, and a
    ``caption``. ``ValueError`` for fewer than one shard.
    """
    from PIL import Image

    if shards < 1:
        raise ValueError(f"There is at least one shard, got {shards}.")
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = [Path(folder) / f"{number:05}.tar" for number in range(shards)]
    with ExitStack() as stack:
        archives = [stack.enter_context(tarfile.open(path, "w")) for path in paths]
        for index, sample in enumerate(samples):
            stream = io.BytesIO()
            pixels = (sample.image * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(stream, "PNG")
            for suffix, content in (("png", stream.getvalue()), ("txt", sample.caption.encode())):
                member = tarfile.TarInfo(f"{index:09}.{suffix}")
                member.size = len(content)
                archives[index % shards].addfile(member, io.BytesIO(content))
    return paths
