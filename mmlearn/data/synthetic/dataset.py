"""What all data sets share that are made when they are asked for."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import Dataset

from mmlearn.suggestions import suggest


class Synthetic(Dataset):
    """Sample i of ``split``, for any i ≥ 0: a function of (split, i, seed) and of the options, and of nothing else.

    ``length`` only says how many an epoch has; it is ``epoch`` if it is not given. Raises ``ValueError`` for an unknown
    split, or a length below 1.
    """

    licence = "Apache-2.0 (made by this package)"
    disk = "none: made on the fly"
    endless = True
    name: ClassVar[str]
    splits: ClassVar[tuple[str, ...]]
    epoch: ClassVar[int] = 100_000

    def __init__(self, split: str, *, seed: int = 0, length: int | None = None):
        length = self.epoch if length is None else length
        if split not in self.splits:
            raise ValueError(f"{self.name} has no split {split!r}; {suggest(split, self.splits)}.")
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}.")
        self.split, self.seed, self.length = split, seed, length

    def _make(self, index: np.ndarray) -> list[Any]:
        """The samples with these numbers, (n,)."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Many samples at once, which is far faster than one by one. ``DataLoader`` calls this."""
        if len(indices) and min(indices) < 0:
            raise IndexError(f"Samples are numbered from 0; got {min(indices)}.")
        return self._make(np.asarray(indices, np.int64)) if len(indices) else []


class Rendered(Synthetic):
    """A :class:`Synthetic` data set of pictures, ``size`` pixels a side: a multiple of 4, and at least ``smallest``."""

    licence = "Apache-2.0 (drawn by this package)"
    smallest: ClassVar[int] = 24

    def __init__(self, split: str, *, size: int, **options: Any):
        super().__init__(split, **options)
        if size < self.smallest or size % 4:
            raise ValueError(
                f"{self.name} has pictures of at least {self.smallest} pixels, a multiple of 4; got {size}."
            )
        self.size = size
