"""What all data sets share that are rendered when they are asked for."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import Dataset

from mmlearn.names import choices


class Rendered(Dataset):
    """Sample i of ``split``, for any i ≥ 0: a function of (split, i, seed) and of the options, and of nothing else.

    ``length`` only says how many an epoch has. Raises ``ValueError`` for an unknown split, a size that is no multiple
    of 4 or below ``smallest`` pixels, or a length below 1.
    """

    licence = "Apache-2.0 (drawn by this package)"
    disk = "none: made on the fly"
    endless = True
    name: ClassVar[str]
    splits: ClassVar[tuple[str, ...]]
    smallest: ClassVar[int] = 24

    def __init__(self, split: str, *, size: int, seed: int, length: int):
        if split not in self.splits:
            raise ValueError(f"{self.name} has no split {split!r}; {choices(split, self.splits)}.")
        if size < self.smallest or size % 4:
            raise ValueError(
                f"{self.name} has pictures of at least {self.smallest} pixels, a multiple of 4; got {size}."
            )
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}.")
        self.split, self.size, self.seed, self.length = split, size, seed, length

    def _render(self, index: np.ndarray) -> list[Any]:
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
        return self._render(np.asarray(indices, np.int64)) if len(indices) else []
