"""WebDataset shards as a stream, for data too large to index: tar files on disks or behind URLs, each read in order.

Every worker of every process is a *lane*, which reads a part of its own:

- *exact*: in each epoch all shards are laid end to end in a new order, and cut into equal parts, one a lane. So each
  sample is read by one lane, and all lanes have equally many batches. What does not fill a batch in every lane is left
  for another epoch: fewer samples than one batch for each worker.
- *resampled*: each lane draws shards with replacement, anew in each epoch. Some samples come twice in an epoch and some
  not at all, and no number of samples need be known but how many are called an epoch.

Samples then pass a buffer from which they are drawn at random. Batch k is a function of the seed, k, and the numbers of
processes and workers. A run that is resumed within an epoch reads once more, without decoding it, what its lanes had
read of that epoch.
"""

import os
import random
import re
from collections.abc import Iterable, Iterator
from functools import cache, partial
from itertools import cycle, groupby, islice
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

from torch.utils.data import Dataset, get_worker_info

from mmlearn.data.batches import Batches, CollateFunction, shuffled
from mmlearn.data.hashing import stream
from mmlearn.data.readers.captions import parsed
from mmlearn.data.readers.files import Files, Part
from mmlearn.data.readers.images import ImageText, read_image
from mmlearn.data.readers.shards import NO_SAMPLE, caption_in, expanded, kind_of, members, tars
from mmlearn.suggestions import suggest

MODES = ("exact", "resampled")
HEAD = 4096  # samples of which fields learn what they must know of the data,
SPREAD = 16  # from so many shards
SHARD_NAME = re.compile(r"[^/\s]+\.(tar|tgz)[^/\s]*")

Portion = tuple[str, int, int | None]  # a shard, and from which of its samples to which


class Raw(NamedTuple):
    """A sample as it is in its shard: what it is called, its picture, its caption, and how the caption's name ends."""

    name: str
    image: bytes
    text: bytes
    suffix: str

    @property
    def caption(self) -> str:
        """Its caption. ``ValueError`` where that is empty or no text."""
        return caption_in(self.text, self.suffix, self.name)


class ShardStream(Files):
    """Pictures with captions from shards that are read in order; what a sample is, :class:`Shards` says.

    ``pattern`` is a path or a URL with braces, such as ``https://host/{00000..00999}.tar`` or ``pipe:aws s3 cp … -``,
    a list of such, or a folder with shards named ``train-0001.tar`` and so on. ``mode`` is one of the two above.
    ``buffer`` samples are mixed, which stay in memory as they are in their files.

    How many samples a shard holds is read from ``sizes.json`` beside it (``{"00000.tar": 9873, …}``), or counted where
    the shard is a file, which takes some 50 µs a file within it. Resampled, ``length`` samples can be called an epoch
    instead. With ``skip_bad`` what cannot be read is noted, and another sample takes its position. ``as_before`` is
    what
    :meth:`kept` said: nothing is counted then.

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
        **options: Any,
    ):
        super().__init__(**options)
        if mode not in MODES:
            raise ValueError(f"A stream is not {mode!r}; {suggest(mode, MODES)}.")
        if min(size, buffer, length or 1) < 1:
            raise ValueError(f"size, buffer and length are at least 1, got {size}, {buffer} and {length}.")
        if mode == "exact" and length is not None:
            raise ValueError("An exact epoch has all samples: its length cannot be given.")
        folder = not isinstance(pattern, list) and os.path.isdir(pattern)
        self.urls = expanded(_train_shards(Path(pattern)) if folder else pattern)
        self.size, self.resampled, self.buffer = size, mode == "resampled", buffer
        self.sizes = self.as_before["sizes"] if self.as_before else [self._count(url, length) for url in self.urls]
        self.length = length or sum(self.sizes)
        if not self.length:
            raise ValueError(NO_SAMPLE.format(pattern))

    def _count(self, url: str, length: int | None) -> int | None:
        """How many samples a shard holds, if that must be known; as far as it can be read, where bad ones are left."""
        path, name = _local(url), SHARD_NAME.search(url)
        if path and path.is_dir():
            raise ValueError(f"{path} is a folder, and no shard: give a pattern, such as '{path}/{{0000..0009}}.tar'.")
        if path and not path.is_file():
            self.leave_out(FileNotFoundError(f"There is no shard {path}."))
            return 0
        if length:
            return None
        if name and name[0] in (known := _sizes_in(SHARD_NAME.sub("sizes.json", url, count=1))):
            return known[name[0]]
        if not path:
            raise ValueError(
                f"How many samples {url} holds is not known: write a sizes.json beside it, or say how many are an "
                "epoch and let shards be resampled."
            )
        found = []
        try:
            found.extend(members(path))
        except ValueError as error:
            self.leave_out(error)
        # As webdataset has it, a sample is files that follow each other and have one name.
        groups = groupby(found, lambda file: file.key)
        return sum({"image", "text"} <= {kind_of(file.suffix) for file in files} for _, files in groups)

    def __len__(self) -> int:
        return self.length

    def kept(self) -> dict[str, Any]:
        return {"sizes": self.sizes}

    def told(self) -> list[Any]:
        return [(url.rpartition("/")[2], size) for url, size in zip(self.urls, self.sizes)]

    def parts(self) -> list[Part]:
        found = [(_local(url), url, size) for url, size in zip(self.urls, self.sizes)]
        return [Part(path, partial(self._decode_all, url, size)) for path, url, size in found if path]

    def _decode_all(self, url: str, size: int | None) -> None:
        for raw in self._shard(url, 0, size):
            self.decoded(raw)

    def batches(self, collate: CollateFunction, batch_size: int, **options: Any) -> "StreamBatches":
        """What :func:`~mmlearn.training.fit` learns from: arguments are those of :class:`~mmlearn.data.Batches`."""
        return StreamBatches(self, collate, batch_size, **options)

    @property
    def head(self) -> "Head":
        """The first samples of some shards, to be read at random: at most 4,096, of at most 16 shards."""
        chosen = self.urls[:: -(-len(self.urls) // SPREAD)]
        each = -(-HEAD // len(chosen))
        raws = (raw for url in chosen for raw in islice(self._samples([(url, 0, None)]), each))
        found = [raw for raw in raws if not self.skip_bad or self.good([raw])]
        if not found:
            raise ValueError(f"No picture with a caption can be read in {chosen[0]} and others.")
        return Head(self, found)

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

    def _cut(self, seed: int, epoch: int, start: int, stop: int) -> Iterator[Portion]:
        """What lies between two positions of all shards, laid end to end in the order of an epoch."""
        position = 0  # of the shard's first sample
        for number in shuffled(len(self.urls), seed, epoch).tolist():
            first, last = max(start - position, 0), min(stop - position, self.sizes[number])
            if first < last:
                yield self.urls[number], first, last
            position += self.sizes[number]

    def _samples(self, portions: Iterable[Portion]) -> Iterator[Raw]:
        """The samples of these. ``ValueError`` where one after the other has none."""
        in_vain = 0
        for portion in portions:
            in_vain += 1
            try:
                for raw in self._shard(*portion):
                    in_vain = 0
                    yield raw
            except (FileNotFoundError, ValueError) as error:
                self.leave_out(error)
            if in_vain > len(self.urls):
                raise ValueError(f"No shard holds a picture with a caption; the last was {portion[0]}.")

    def _shard(self, url: str, first: int, last: int | None) -> Iterator[Raw]:
        """Some samples of a shard. ``FileNotFoundError`` without it; ``ValueError`` where damaged, or with fewer."""
        found = 0
        try:
            for raw in islice(_raws(url), last):
                found += 1
                if found > first:
                    yield raw
        except Exception as error:  # of webdataset, of tarfile, or of a command that a URL stands for
            path = _local(url)
            if path and not path.exists():
                raise FileNotFoundError(f"There is no shard {path}.") from error
            reason = getattr(error, "strerror", None) or (error.args[0] if error.args else type(error).__name__)
            raise ValueError(f"{url} is damaged, or no tar file ({reason}).") from error
        if last is not None and found < last:
            raise ValueError(f"{url} is cut off: it holds {found} samples, and should hold {last} or more.")

    def decoded(self, raw: Raw) -> ImageText:
        """A sample. ``ValueError`` for a picture that is none, and for a caption that is empty."""
        return ImageText(read_image(raw.image, self.size, name=raw.name), raw.caption, raw.name)

    def good(self, raws: Iterable[Raw]) -> list[ImageText]:
        """These samples, decoded, less those that are bad where they may be, which are noted."""
        found = []
        for raw in raws:
            try:
                found.append(self.decoded(raw))
            except ValueError as error:
                self.leave_out(error)
        return found


class Head(Dataset):
    """Samples of a stream that are at hand."""

    def __init__(self, data: ShardStream, raws: list[Raw]):
        self.data, self.raws = data, raws

    def __len__(self) -> int:
        return len(self.raws)

    def caption(self, index: int) -> str:
        """A caption without its picture."""
        return self.raws[index].caption

    def __getitem__(self, index: int) -> ImageText:
        return self.data.decoded(self.raws[index])


class StreamBatches(Batches):
    """Batch k of a stream, for any k ≥ 0, and soonest for the one after that which was asked last.

    Of two workers each is asked for every second batch, of three for every third, as PyTorch's ``DataLoader`` does. A
    batch that does not follow is found by reading its epoch up to there. Raises ``ValueError`` as
    :class:`~mmlearn.data.Batches` does, for ``lengths``, which a stream does not know, and for an epoch that has no
    batch for each worker.
    """

    def __init__(self, data: ShardStream, collate: CollateFunction, batch_size: int, **options: Any):
        if options.get("lengths") is not None:
            raise ValueError("A stream cannot be sorted by lengths, which it does not know: leave them out.")
        super().__init__(data, collate, batch_size, **options)
        self.reading: Iterator[Raw] = iter(())
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
        epoch, batch = divmod(step // workers, each)
        if (lane, epoch, batch) != self.next:
            self.reading = islice(self.data.read(self.seed, epoch, lane, each * b), batch * b, None)
        raws = list(islice(self.reading, b))
        self.next = (lane, epoch, batch + 1) if batch + 1 < each else None  # the next epoch is opened anew
        # In the place of a bad one another of the batch is taken, or if all are bad, the first of the data.
        found = self.data.good(raws) or [self.data.head[0]]
        return list(islice(cycle(found), b))


def _raws(url: str) -> Iterator[Raw]:
    """The samples of a shard that have a picture and a caption."""
    from webdataset.tariterators import base_plus_ext, tarfile_samples

    for files in tarfile_samples([{"url": url}], select_files=lambda name: kind_of(base_plus_ext(name)[1] or "")):
        last = {kind_of(suffix): suffix for suffix in files}
        if {"image", "text"} <= last.keys():
            name = f"{files['__key__']} in {url}"
            yield Raw(name, files[last["image"]], files[last["text"]], last["text"])


def _train_shards(folder: Path) -> list[str]:
    """The shards of a folder that are to be learned from."""
    found = [path for name, path in tars(folder).items() if name.startswith("train")]
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
