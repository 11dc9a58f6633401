"""Packing: several conversations in one row of a batch, with their images, so that little of it is padding."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmlearn.data.batches import CollateFunction

PADDING = {"tokens": 0, "mask": False, "response": False}


def check_packs(system: nn.Module, name: str) -> None:
    """``ValueError`` for a system whose ``forward`` does not ask of which conversation a token is."""
    if "conversation" not in inspect.signature(system.forward).parameters:
        raise ValueError(f"{name} reads one text in each row: leave pack out.")


def share_rows(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Which texts share a row of up to ``most`` tokens. The longest is placed first, each in the first row with room.

    This is first-fit decreasing, which needs at most 11/9 of the fewest rows and one more. ``ValueError`` for a text
    that is longer than a row.
    """
    if (longest := max(lengths)) > most:
        raise ValueError(
            f"A conversation of {longest} tokens, with those of its image, does not fit into rows of {most}: pack "
            f"{longest} or more."
        )
    rows: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((row for row, left in enumerate(room) if left >= lengths[i]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(most)
        rows[row].append(i)
        room[row] -= lengths[i]
    return [sorted(row) for row in rows]


def pack(batch: dict[str, Tensor], length: int) -> dict[str, Tensor]:
    """The conversations of a batch in fewer rows, of up to ``length`` tokens each: r rows of s images at most.

    Entries of a token stay (r, t); ``conversation`` (r, t) says whose each token is, as
    :func:`~mmlearn.layers.packing.packed` reads it. ``image`` becomes (r, s, c, height, width), in the order of the
    texts, and ``image_mask`` (r, s) says which are real. Other entries are left out. Errors as of :func:`share_rows`.
    """
    mask = batch["mask"]
    lengths = mask.sum(1).tolist()
    rows = share_rows(lengths, length)
    texts = {name: [x[real] for x, real in zip(batch[name], mask)] for name in PADDING if name in batch}
    texts["conversation"] = [torch.full((n,), i) for i, n in enumerate(lengths)]
    joined = {
        name: pad_sequence([torch.cat([parts[i] for i in row]) for row in rows], True, PADDING.get(name, -1))
        for name, parts in texts.items()
    }
    image, seen = batch["image"], batch.get("image_mask")
    image = image if image.ndim == 5 else image[:, None]  # (b, images, c, height, width)
    own = image if seen is None else [x[real] for x, real in zip(image, seen)]
    images = [torch.cat([own[i] for i in row]) for row in rows]
    there = pad_sequence([torch.ones(len(x), dtype=torch.bool) for x in images], True)
    return joined | {"image": pad_sequence(images, True), "image_mask": there}


def padding(lengths: Sequence[int]) -> float:
    """The share of padding in a batch whose rows have so many tokens."""
    return 1 - sum(lengths) / (len(lengths) * max(lengths))


class Packed:
    """What a collation makes of samples, with several conversations in each row: :func:`pack`."""

    def __init__(self, collate: CollateFunction, length: int):
        if length < 1:
            raise ValueError(f"A row has at least one token, got {length}.")
        self.collate, self.length = collate, length

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        return pack(self.collate(samples), self.length)
