"""From samples to batches, without a state: batch k is a function of (seed, k), so that a stopped run can go on."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmlearn.data.hashing import stream

Samples = Dataset | Sequence[Any]  # a list or a range will do
CollateFunction = Callable[[Sequence[Any]], dict[str, Tensor]]
WINDOW = 16  # batches among which samples are sorted by their length


class Batches(Dataset):
    """Batch k of an endless, shuffled walk through ``data``: item k, for any k ≥ 0.

    Each epoch visits every sample at most once, in an order of its own; what does not fill a batch is left for another
    epoch. Of ``world`` processes each gets its own part of the same batch, in order of ``rank``. With ``lengths``, one
    number a sample, a batch holds samples of similar length, so that less of it is padding. Where ``collate`` has
    ``at(step)``, that is the collation of a step, and ``data`` may be several data sets by name, of which
    ``collate.source(step)`` names one.

    Raises ``ValueError`` for fewer samples than one batch has, a batch that does not divide among the processes, or
    ``lengths`` that are not one a sample.
    """

    def __init__(
        self,
        data: Samples | Mapping[str | None, Samples],
        collate: CollateFunction,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        lengths: Sequence[int] | None = None,
    ):
        for part in data.values() if isinstance(data, Mapping) else [data]:
            if len(part) < world:
                raise ValueError(f"{len(part)} samples are too few for {world} processes; start at most {len(part)}.")
            if not 1 <= batch_size <= len(part):
                raise ValueError(
                    f"A batch of {batch_size} cannot be drawn from {len(part)} samples; lower the batch size."
                )
            if lengths is not None and len(lengths) != len(part):
                raise ValueError(f"lengths are one number a sample; got {len(lengths)} for {len(part)} samples.")
        if batch_size % world:
            raise ValueError(
                f"A batch of {batch_size} does not divide among {world} processes; take a multiple of {world}."
            )
        self.data, self.collate, self.batch_size = data, collate, batch_size
        self.seed, self.rank, self.world = seed, rank, world
        self.lengths = None if lengths is None else torch.as_tensor(lengths)
        self.newest: tuple[int, Tensor] | None = None  # an epoch and its order, so that each is sorted once

    def source(self, step: int) -> Samples:
        """The data set that batch ``step`` comes from."""
        return self.data[self.collate.source(step)] if isinstance(self.data, Mapping) else self.data

    def indices(self, step: int) -> list[int]:
        """Which samples this process has in batch ``step``."""
        length = len(self.source(step))
        epoch, position = divmod(step, length // self.batch_size)
        order = self.order(length, epoch)
        return rank_batches(order, self.rank, self.world, self.batch_size)[position].tolist()

    def order(self, length: int, epoch: int) -> Int[Tensor, "_"]:
        """The order of an epoch."""
        if self.lengths is None:
            return shuffled(length, self.seed, epoch)
        if self.newest is None or self.newest[0] != epoch:
            order = shuffled(length, self.seed, epoch)
            self.newest = epoch, similar_lengths(order, self.lengths, self.batch_size, self.seed, epoch)
        return self.newest[1]

    def samples(self, step: int) -> list[Any]:
        """What this process has in batch ``step``."""
        return fetch(self.source(step), self.indices(step))

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        collate = self.collate.at(step) if hasattr(self.collate, "at") else self.collate
        return collate(self.samples(step))


def batches_of(
    data: Samples | Mapping[str | None, Samples], collate: CollateFunction, batch_size: int, **options: Any
) -> Batches:
    """Those that ``data`` makes itself, as a stream does, or else :class:`Batches`, whose options these are."""
    return getattr(data, "batches", partial(Batches, data))(collate, batch_size, **options)


@lru_cache(maxsize=4)
def shuffled(length: int, seed: int, epoch: int) -> Int[Tensor, "length"]:
    """The order of an epoch."""
    generator = torch.Generator().manual_seed(int(stream("epoch", seed, epoch)) >> 1)
    return torch.randperm(length, generator=generator)


def rank_batches(order: Int[Tensor, "n"], rank: int, world: int, batch_size: int) -> Int[Tensor, "steps own"]:
    """Which samples one of ``world`` processes has in each batch of an epoch, whose samples come in this order.

    Batch k of all processes is the k-th ``batch_size`` samples, whatever ``world`` is; each process has an equal part,
    in order of rank. So no sample has two of them, and all take as many steps; what does not fill a batch is left out.
    """
    steps = len(order) // batch_size
    return order[: steps * batch_size].view(steps, world, batch_size // world)[:, rank]


def similar_lengths(
    order: Int[Tensor, "n"], lengths: Int[Tensor, "n"], batch_size: int, seed: int, epoch: int
) -> Int[Tensor, "_"]:
    """The same order, sorted by length within every 16 batches, which are then shuffled among themselves."""
    parts = [part[lengths[part].argsort(stable=True)] for part in order.split(WINDOW * batch_size)]
    batches = [batch for part in parts for batch in part.split(batch_size) if len(batch) == batch_size]
    return torch.cat([batches[i] for i in shuffled(len(batches), seed, epoch).tolist()])


def spread(length: int, count: int) -> list[int]:
    """``count`` numbers, or as many as there are, spread evenly from 0 to ``length`` - 1."""
    return torch.linspace(0, length - 1, min(count, length)).long().tolist()


def fetch(data: Samples, indices: Sequence[int]) -> list[Any]:
    """These samples, at once where the data set can."""
    if hasattr(data, "__getitems__"):
        return data.__getitems__(indices)
    return [data[index] for index in indices]


class GeneratedBatches(Dataset):
    """A batch for each of so many ``steps``, which ``make(step)`` makes when it is asked for: few fit into memory."""

    def __init__(self, steps: int, make: Callable[[int], dict[str, Tensor]]):
        self.steps, self.make = range(steps), make

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, step: int | slice) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        if isinstance(step, slice):
            return [self.make(one) for one in self.steps[step]]
        return self.make(self.steps[step])


def sampled_batches(data: Mapping[str, Tensor], size: int, steps: int, generator: torch.Generator) -> GeneratedBatches:
    """For each step ``size`` rows of tensors that hold all samples, drawn evenly; a row may come twice."""
    rows = len(next(iter(data.values())))
    positions = [torch.randint(rows, (size,), generator=generator) for _ in range(steps)]
    return GeneratedBatches(steps, lambda step: {name: value[positions[step]] for name, value in data.items()})


def shuffled_batches(
    data: Mapping[str, Tensor], size: int, steps: int, generator: torch.Generator
) -> list[dict[str, Tensor]]:
    """For each step ``size`` rows of tensors that hold all samples: no row comes again before all others have come.

    What does not fill a batch is left for another pass. Raises ``ValueError`` for fewer rows than one batch has.
    """
    rows, positions = len(next(iter(data.values()))), []
    if rows < size:
        raise ValueError(f"A batch of {size} needs as many samples, and there are {rows}.")
    while len(positions) < steps:
        positions += [
            position for position in torch.randperm(rows, generator=generator).split(size) if len(position) == size
        ]
    return [{name: value[position] for name, value in data.items()} for position in positions[:steps]]


def prepared_batches(
    data: Dataset, collate: CollateFunction, parts: Sequence[Sequence[int]], workers: int = 0
) -> list[dict[str, Tensor]]:
    """A batch of each of these lists of samples, prepared by ``workers`` other processes, to be used again and again.

    That suits collations that cost more than a step, as a detector's do.
    """
    own = torch.Generator().manual_seed(0)  # otherwise the loader takes a number from the global one
    prepare = partial(_fetched, data, collate)
    loader = DataLoader(parts, batch_size=None, collate_fn=prepare, num_workers=workers, generator=own)
    # What comes from another process keeps a file open until it is copied.
    return [{name: value.clone() for name, value in batch.items()} for batch in loader]


def _fetched(data: Dataset, collate: CollateFunction, part: Sequence[int]) -> dict[str, Tensor]:
    return collate(fetch(data, list(part)))


def collated(
    data: Dataset, collate: CollateFunction, indices: Sequence[int], told: Callable[[Any], Any] = lambda sample: None
) -> tuple[list[Any], dict[str, Tensor]]:
    """What is ``told`` of each of these samples, and all of them in one batch.

    Samples are fetched 256 at a time, so that only their tensors stay in memory. All collated parts have the same
    shapes beyond the first axis.
    """
    known, parts = [], []
    for start in range(0, len(indices), 256):
        samples = fetch(data, indices[start : start + 256])
        known += [told(sample) for sample in samples]
        parts.append(collate(samples))
    return known, {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def normalised(
    samples: Sequence[Any], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "b 3 height width"]:
    """The pictures of these samples, less ``mean`` and over ``std``, one number a channel."""
    mean, std = (torch.tensor(list(values)).view(3, 1, 1) for values in (mean, std))
    return torch.stack([sample.image for sample in samples]).sub_(mean).div_(std)


def caption_ids(texts: Sequence[str]) -> Int[Tensor, "b"]:
    """A number for each text, equal where texts are, and the same in every process."""
    return torch.tensor([int(stream(text)) >> 1 for text in texts])


def image_statistics(data: Dataset, count: int = 512) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """Mean and standard deviation of each channel over ``count`` samples, spread evenly through the data.

    A channel that hardly changes has a deviation of 1/255, so that pictures can be divided by it.
    """
    samples = fetch(data, spread(len(data), count))
    pixels = torch.stack([sample.image for sample in samples])
    return pixels.mean((0, 2, 3)), pixels.std((0, 2, 3)).clamp(min=1 / 255)
