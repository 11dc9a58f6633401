"""WebDataset shards as a stream, for data too large to index: tar files on disks or behind URLs, each read in order.

Every worker of every process is a *lane*, which reads a part of its own:

- *exact*: in each epoch all shards are laid end to end in a new order, and cut into equal parts, one a lane. So each
  sample is read by one lane of one process, and all lanes have equally many batches, however long the shards are. A
  shard that lies across a cut is opened by both lanes. What does not fill a batch in every lane is left for another
  epoch: fewer samples than one batch for each worker.
- *resampled*: each lane draws shards with replacement, anew in each epoch. Some samples come twice in an epoch and some
  not at all, and no number of samples need be known but how many are called an epoch.

Samples then pass a buffer from which they are drawn at random. Batch k is a function of the seed, k, and the numbers of
processes and workers. A run that is resumed within an epoch first reads once more what its lanes had read of that
epoch, without decoding it: some thousand samples a second for each lane.
"""

import os
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from itertools import cycle, groupby, islice
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from torch.utils.data import Dataset, get_worker_info

from mmlearn.data.batches import Batches, CollateFunction, shuffled
from mmlearn.data.hashing import stream
from mmlearn.data.read.captions import parsed
from mmlearn.data.read.files import Part, Skipping
from mmlearn.data.read.pictures import ImageText, read_picture
from mmlearn.data.read.shards import caption_in, expanded, kind_of, members, tars
from mmlearn.names import choices

MODES = ("exact", "resampled")
HEAD = 4096  # samples of which fields learn what they must know of the data,
SPREAD = 16  # from so many shards
META = re.compile(r"__[^/]*__($|/)")  # files that are about a shard
SHARD_NAME = re.compile(r"[^/\s]+\.(tar|tgz)[^/\s]*")

Raw = dict[str, Any]  # a sample as webdataset reads it: contents by the ending of their file
Portion = tuple[str, int, int | None]  # a shard, and from which of its samples to which


class ShardStream(Skipping):
    """Pictures with captions from shards that are read in order; what a sample is, :class:`Shards` says.

    ``pattern`` is a path or a URL with braces, such as ``https://host/{00000..00999}.tar`` or ``pipe:aws s3 cp … -``,
    a list of such, or a folder with shards named ``train-0001.tar`` and so on. ``mode`` is one of the two above.
    ``buffer`` samples are mixed, which stay in memory as they are in their files.

    How many samples a shard holds is read from ``sizes.json`` beside it (``{"00000.tar": 9873, …}``), or counted where
    the shard is a file, which takes some 50 µs a file within it, in each process. Resampled, ``length`` samples can be
    called an epoch instead. With ``skip_bad`` what cannot be read is noted, and another sample takes its place.
    ``as_before`` is what :meth:`kept` said: nothing is counted then.

    Raises ``FileNotFoundError`` for a missing shard; ``ValueError`` for one that is damaged or shorter than it should
    be, and where the number of samples is not known.
    """

    holds = "samples"

    def __init__(
        self,
        pattern: str | Path | list[str],
        *,
        size: int = 64,
        mode: str = "exact",
        length: int | None = None,
        buffer: int = 1000,
        skip_bad: bool = False,
        as_before: dict[str, Any] | None = None,
    ):
        super().__init__(skip_bad, as_before)
        if mode not in MODES:
            raise ValueError(f"A stream is not {mode!r}; {choices(mode, MODES)}.")
        if min(size, buffer, length or 1) < 1:
            raise ValueError(f"size, buffer and length are at least 1, got {size}, {buffer} and {length}.")
        if mode == "exact" and length is not None:
            raise ValueError("An exact epoch has all samples: its length cannot be given.")
        folder = not isinstance(pattern, list) and os.path.isdir(pattern)
        self.urls = expanded(_train_shards(pattern) if folder else pattern)
        self.size, self.resampled, self.buffer = size, mode == "resampled", buffer
        self.sizes = as_before["sizes"] if as_before else [self._size(url, length) for url in self.urls]
        self.length = length or sum(self.sizes)
        if not self.length:
            raise ValueError(f"No picture with a caption in {pattern}; a sample is NAME.jpg and NAME.txt or NAME.json.")

    def _size(self, url: str, length: int | None) -> int | None:
        """How many samples a shard holds, if that must be known; as far as it can be read, where bad ones are left."""
        path = _local(url)
        if path and not path.is_file():
            self.leave_out(FileNotFoundError(f"There is no shard {path}."))
            return 0
        if length:
            return None
        size, error = _size(url)
        if error:
            self.leave_out(error)
        return size

    def __len__(self) -> int:
        """Samples in an epoch."""
        return self.length

    def kept(self) -> dict[str, Any]:
        """How many samples each shard has."""
        return {"sizes": self.sizes}

    def told(self) -> list[Any]:
        """The shards' names, in their order, and how many samples they hold."""
        return [(url.rpartition("/")[2], size) for url, size in zip(self.urls, self.sizes)]

    def parts(self) -> list[Part]:
        """Those shards that are files here."""
        return [
            Part(path, partial(self._read_whole, url, size))
            for url, size in zip(self.urls, self.sizes)
            if (path := _local(url))
        ]

    def _read_whole(self, url: str, size: int | None) -> None:
        for raw in self._shard(url, 0, size):
            self.decoded(raw)

    def batches(self, collate: CollateFunction, batch_size: int, **options: Any) -> "StreamBatches":
        """What :func:`~mmlearn.training.fit` learns from: arguments are those of :class:`~mmlearn.data.Batches`."""
        return StreamBatches(self, collate, batch_size, **options)

    @property
    def head(self) -> "Samples":
        """The first samples of some shards, to be read at random: at most 4,096, of at most 16 shards."""
        chosen = self.urls[:: -(-len(self.urls) // SPREAD)]
        each = -(-HEAD // len(chosen))
        raws = (raw for url in chosen for raw in islice(self._samples([(url, 0, None)]), each))
        found = [raw for raw in raws if not self.skip_bad or self.good([raw])]
        if not found:
            raise ValueError(f"No picture with a caption can be read in {chosen[0]} and others.")
        return Samples(self, found)

    def read(self, seed: int, epoch: int, lane: int, count: int) -> Iterator[Raw]:
        """The ``count`` samples of one lane in an epoch, mixed."""
        from webdataset.filters import shuffle

        if self.resampled:
            portions = self._drawn(int(stream("shards", seed, epoch, lane)))
        else:
            portions = self._cut(seed, epoch, lane * count, (lane + 1) * count)
            portions = cycle(portions) if self.skip_bad else portions  # a damaged shard has fewer than were counted
        mixed = shuffle(self.buffer, self.buffer, random.Random(int(stream("buffer", seed, epoch, lane))))
        return mixed(islice(self._samples(portions), count))

    def _drawn(self, seed: int) -> Iterator[Portion]:
        from webdataset.shardlists import ResampledShards

        sizes = dict(zip(self.urls, self.sizes))
        for item in ResampledShards(self.urls, seed=seed, worker_seed=lambda: 0, deterministic=True):
            yield item["url"], 0, sizes[item["url"]]

    def _cut(self, seed: int, epoch: int, start: int, stop: int) -> list[Portion]:
        """What lies between two places of all shards, laid end to end in the order of an epoch."""
        portions, place = [], 0
        for number in shuffled(len(self.urls), seed, epoch).tolist():
            first, last = max(start - place, 0), min(stop - place, self.sizes[number])
            if first < last:
                portions.append((self.urls[number], first, last))
            place += self.sizes[number]
        return portions

    def _samples(self, portions: Iterable[Portion]) -> Iterator[Raw]:
        """The samples of these. ``ValueError`` where one after the other has none."""
        in_vain = 0
        for portion in portions:
            in_vain += 1
            try:
                for raw in self._shard(*portion):
                    in_vain = 0
                    yield raw
            except ValueError as error:
                self.leave_out(error)
            if in_vain > len(self.urls):
                raise ValueError(f"No shard holds a picture with a caption; the last was {portion[0]}.")

    def _shard(self, url: str, first: int, last: int | None) -> Iterator[Raw]:
        """Some samples of a shard. ``ValueError`` where it cannot be read, or has fewer."""
        from webdataset.tariterators import tarfile_samples

        found = 0
        try:
            for raw in islice(filter(_is_sample, tarfile_samples([{"url": url}], select_files=_is_part)), last):
                found += 1
                if found > first:
                    yield raw
        except Exception as error:  # of webdataset, of tarfile, or of a command that a URL stands for
            reason = getattr(error, "strerror", None) or (error.args[0] if error.args else type(error).__name__)
            raise ValueError(f"{url} is damaged, or no tar file ({reason}).") from error
        if last is not None and found < last:
            raise ValueError(f"{url} is cut off: it holds {found} samples, and should hold {last} or more.")

    def decoded(self, raw: Raw) -> ImageText:
        """A sample. ``ValueError`` for a picture that is none, and for a caption that is empty."""
        name, image, _ = _parts(raw)
        return ImageText(read_picture(raw[image], self.size, name=name), caption_of(raw), name)

    def good(self, raws: Iterable[Raw]) -> list[ImageText]:
        """These samples, decoded, less those that are bad where they may be, which are noted."""
        found = []
        for raw in raws:
            try:
                found.append(self.decoded(raw))
            except ValueError as error:
                self.leave_out(error)
        return found


class Samples(Dataset):
    """Samples of a stream that are at hand."""

    def __init__(self, data: ShardStream, raws: list[Raw]):
        self.data, self.raws = data, raws

    def __len__(self) -> int:
        return len(self.raws)

    def caption(self, index: int) -> str:
        """A caption without its picture."""
        return caption_of(self.raws[index])

    def __getitem__(self, index: int) -> ImageText:
        return self.data.decoded(self.raws[index])


class StreamBatches(Batches):
    """Batch k of a stream, for any k ≥ 0, and soonest for the one after that which was asked last.

    Of two workers each is asked for every second batch, of three for every third, as PyTorch's ``DataLoader`` does. A
    batch that does not follow is found by reading its epoch up to there.

    Raises ``ValueError`` as :class:`~mmlearn.data.Batches` does, for ``lengths``, which a stream does not know, and for
    an epoch that has no batch for each worker.
    """

    def __init__(
        self,
        data: ShardStream,
        collate: CollateFunction,
        batch_size: int,
        *,
        lengths: Sequence[int] | None = None,
        **rest: Any,
    ):
        if lengths is not None:
            raise ValueError("A stream cannot be sorted by lengths, which it does not know: leave them out.")
        super().__init__(data, collate, batch_size, **rest)
        self.reading: Iterator[Raw] | None = None
        self.next: tuple[int, int, int] | None = None  # lane, epoch and batch in it that comes next

    def samples(self, step: int) -> list[ImageText]:
        """What this process has in batch ``step``."""
        worker, b = get_worker_info(), self.batch_size // self.world
        workers = worker.num_workers if worker else 1
        each = len(self.data) // (b * self.world * workers)  # batches of a lane in an epoch
        if not each:
            raise ValueError(
                f"An epoch of {len(self.data)} samples has no batch of {self.batch_size} for each of {workers} "
                "workers; lower the batch size or the workers."
            )
        lane = self.rank * workers + step % workers
        place = (lane, *divmod(step // workers, each))
        if place != self.next:
            self.reading = self.data.read(self.seed, place[1], lane, each * b)
            next(islice(self.reading, place[2] * b, place[2] * b), None)
        raws = list(islice(self.reading, b))
        self.next = (lane, *divmod(step // workers + 1, each))
        if self.next[2] == 0:
            self.next = None  # the next epoch is opened anew
        # In the place of a bad one another of the batch is taken, or if all are bad, the first of the data.
        found = self.data.good(raws) or [self.data.head[0]]
        return list(islice(cycle(found), b))


def caption_of(raw: Raw) -> str:
    """The caption of a sample. ``ValueError`` where it is empty."""
    name, _, text = _parts(raw)
    return caption_in(raw[text], text, name)


def _parts(raw: Raw) -> tuple[str, str, str]:
    """What a sample is called, and the endings of its picture and its caption."""
    last = {kind_of(suffix): suffix for suffix in raw}
    return f"{raw['__key__']} in {raw['__url__']}", last["image"], last["text"]


def _is_part(name: str) -> bool:
    """Whether a file belongs to a picture or a caption."""
    from webdataset.tariterators import base_plus_ext

    return bool(kind_of((base_plus_ext(name)[1] or "").lower()))


def _is_sample(raw: Raw) -> bool:
    return {"image", "text"} <= set(map(kind_of, raw))


def _train_shards(folder: str | Path) -> list[str]:
    """The shards of a folder that are to be learned from."""
    found = [str(path) for path in tars(folder) if path.relative_to(folder).as_posix().startswith("train")]
    if not found:
        raise ValueError(
            f"{folder} has no shards of train, such as train-0001.tar; name them so, or give a pattern, such as "
            f"'{folder}/{{0000..0009}}.tar', of those to learn from."
        )
    return found


def _local(url: str) -> Path | None:
    """The file that a URL is of, if any."""
    parts = urlparse(url)
    return Path(parts.path if parts.scheme == "file" else url) if parts.scheme in ("", "file") else None


def _size(url: str) -> tuple[int, ValueError | None]:
    """How many samples a shard holds, as far as it is whole, and what is wrong with it."""
    name = SHARD_NAME.search(url)
    known = _sizes_in(SHARD_NAME.sub("sizes.json", url, count=1)) if name else {}
    if name and name[0] in known:
        return known[name[0]], None
    if path := _local(url):
        return _counted(path)
    raise ValueError(
        f"How many samples {url} holds is not known: write a sizes.json beside it, or say how many are an epoch "
        "and let shards be resampled."
    )


@cache
def _sizes_in(url: str) -> dict[str, int]:
    """What a ``sizes.json`` says; nothing where there is none."""
    from webdataset.gopen import gopen

    try:
        with gopen(url) as file:
            content = file.read()
    except OSError:
        return {}
    try:
        sizes = parsed(content.decode(), url)
        if not all(type(size) is int and size >= 0 for size in sizes.values()):
            raise ValueError("sizes are whole numbers from 0")
    except ValueError as error:
        raise ValueError(f'{url} is not as {{"00000.tar": 9873}}: {error}.') from error
    return sizes


def _counted(path: Path) -> tuple[int, ValueError | None]:
    """As webdataset groups the files of a shard: those that follow each other and have one name."""
    from webdataset.tariterators import base_plus_ext

    parts, problem = [], None
    try:
        for name, _, _ in members(path):
            if _is_part(name) and not META.match(name):
                parts.append(base_plus_ext(name))
    except ValueError as error:
        problem = error
    groups = groupby(parts, key=lambda part: part[0])
    size = sum({"image", "text"} <= {kind_of(suffix.lower()) for _, suffix in group} for _, group in groups)
    return size, problem
