"""From samples to batches, without a state: batch k is a function of (seed, k), so that a stopped run can go on."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from mmlearn.data.augment import augment
from mmlearn.data.hashing import stream
from mmlearn.data.tokenizer import Tokenizer

Collate = Callable[[Sequence[Any]], dict[str, Tensor]]


class Batches(Dataset):
    """Batch k of an endless, shuffled walk through ``data``: item k, for any k ≥ 0.

    Each epoch visits every sample at most once, in an order of its own; what does not fill a batch is left for another
    epoch. Of ``world`` processes each gets its own part of the same batch, in order of ``rank``.

    Raises ``ValueError`` for fewer samples than one batch has, or a batch that does not divide among the processes.
    """

    def __init__(
        self, data: Dataset, collate: Collate, batch_size: int, *, seed: int = 0, rank: int = 0, world: int = 1
    ):
        if not 1 <= batch_size <= len(data):
            raise ValueError(f"A batch of {batch_size} cannot be drawn from {len(data)} samples; lower the batch size.")
        if batch_size % world:
            raise ValueError(f"A batch of {batch_size} does not divide among {world} processes.")
        self.data, self.collate, self.batch_size = data, collate, batch_size
        self.seed, self.rank, self.world = seed, rank, world
        self._order = lru_cache(maxsize=1)(self._shuffle)

    def _shuffle(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(int(stream("epoch", self.seed, epoch)) >> 1)
        return torch.randperm(len(self.data), generator=generator)

    def indices(self, step: int) -> list[int]:
        """Which samples this process has in batch ``step``."""
        epoch, place = divmod(step, len(self.data) // self.batch_size)
        batch = self._order(epoch)[place * self.batch_size : (place + 1) * self.batch_size]
        return batch.chunk(self.world)[self.rank].tolist()

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        return self.collate(fetch(self.data, self.indices(step)))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_order"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._order = lru_cache(maxsize=1)(self._shuffle)


def fetch(data: Dataset, indices: Sequence[int]) -> list[Any]:
    """These samples, at once where the data set can."""
    if hasattr(data, "__getitems__"):
        return data.__getitems__(indices)
    return [data[index] for index in indices]


def normalised(
    samples: Sequence[Any], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "b 3 height width"]:
    """The pictures of these samples, less ``mean`` and over ``std``, one number a channel."""
    mean, std = (torch.tensor(list(values)).view(3, 1, 1) for values in (mean, std))
    return torch.stack([sample.image for sample in samples]).sub_(mean).div_(std)


def numbered(texts: Sequence[str]) -> Int[Tensor, "b"]:
    """A number for each text, equal where texts are, and the same in every process."""
    return torch.tensor([int(stream(text)) >> 1 for text in texts])


class PairCollate:
    """Samples with ``image`` and ``caption`` → ``image`` (b, 3, height, width), ``tokens`` and ``mask`` (b, t).

    Pictures are normalised by ``mean`` and ``std`` (one number a channel). With ``mark_repeats`` the batch also holds
    ``caption_id`` (b,), equal where captions are, so that a repeated caption is no false negative.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        mark_repeats: bool = False,
    ):
        self.tokenizer, self.mean, self.std, self.mark_repeats = tokenizer, mean, std, mark_repeats

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        captions = [sample.caption for sample in samples]
        tokens, mask = self.tokenizer(captions)
        batch = {"image": normalised(samples, self.mean, self.std), "tokens": tokens, "mask": mask}
        if self.mark_repeats:
            batch["caption_id"] = numbered(captions)
        return batch


class Augmented:
    """Another collation with its pictures changed by :func:`mmlearn.data.augment.augment`.

    The captions of the batch, in order, are the seed.
    """

    def __init__(self, collate: Collate):
        self.collate = collate

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        batch = self.collate(samples)
        seed = int(stream(*(sample.caption for sample in samples))) >> 1
        return batch | {"image": augment(batch["image"], torch.Generator().manual_seed(seed))}


def image_statistics(data: Dataset, count: int = 512) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """Mean and standard deviation of each channel over ``count`` samples, spread evenly through the data.

    A channel that hardly changes has a deviation of 1/255, so that pictures can be divided by it.
    """
    samples = fetch(data, torch.linspace(0, len(data) - 1, min(count, len(data))).long().tolist())
    pixels = torch.stack([sample.image for sample in samples])
    return pixels.mean((0, 2, 3)), pixels.std((0, 2, 3)).clamp(min=1 / 255)
