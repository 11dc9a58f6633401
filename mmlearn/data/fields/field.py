"""A field turns samples into some entries of a batch. It first learns from the data what it must know, if anything.

A recipe names its fields in one line each. A field knows no system, only the names of sizes in a configuration.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmlearn.layers.config import Config

Batch = dict[str, Tensor]
KINDS = {"Float": "floats", "Int": "whole numbers (int64)", "Bool": "true or false"}


@dataclass(frozen=True)
class Field:
    """Some entries of a batch: how samples become tensors, and what random tensors of the same kind look like.

    ``holds`` names the entries and their axes as jaxtyping writes them; a batch may lack those in ``optional``. An
    entry whose name ends in ``mask`` says which places of the field's other entries are real. ``known`` names the
    attributes that :meth:`fitted` finds out and that a run's folder keeps.
    """

    holds: ClassVar[dict[str, str]] = {}
    optional: ClassVar[tuple[str, ...]] = ()
    known: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[str] = ""  # an attribute that every sample must have
    advice: ClassVar[str] = "use other data"  # what to do where samples lack it
    fixed: ClassVar[str] = ""  # why this field cannot be augmented; empty: it can

    def __call__(self, samples: Sequence[Any]) -> Batch:
        """The entries for these samples."""
        raise NotImplementedError

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        """Random entries for b rows, of the sizes in ``config``. Rows differ in length where they may."""
        raise NotImplementedError

    def check_sample(self, sample: Any, system: str) -> None:
        """``ValueError`` where a sample lacks what this field reads."""
        if getattr(sample, self.needs, None) is None:
            raise ValueError(f"{system} reads {self.needs}, and these samples have none: {self.advice}.")

    def data_options(self, config: Config) -> dict[str, Any]:
        """What to ask of the data set, such as the size of pictures."""
        return {}

    def fitted(self, data: Dataset, config: Config, seed: int) -> Self:
        """This field with what it must know of the data, such as a vocabulary or a mean."""
        return self

    def sizes(self) -> dict[str, Any]:
        """Sizes that the data decides, by their names in a configuration."""
        return {}

    def example_sizes(self, config: Config) -> dict[str, Any]:
        """Sizes in which an example needs the configuration to differ from its preset."""
        return {}

    def augmented(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch with this field's entries varied at random, where that is possible."""
        return batch

    def save(self, folder: Path) -> dict[str, Any]:
        """What is known, as JSON holds it. Larger things go into files of ``folder``."""
        return {name: getattr(self, name) for name in self.known}

    def load(self, folder: Path, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`save`. ``ValueError`` for values that no field can have."""
        return replace(self, **{name: _as_tuples(values[name]) for name in self.known})


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def size(config: Any, name: str, default: Any = None) -> Any:
    """The setting ``name`` of a configuration, or of one of the configurations inside it."""
    if hasattr(config, name):
        return getattr(config, name)
    for part in vars(config).values():
        if is_dataclass(part) and (found := size(part, name)) is not None:
            return found
    return default


def resize(config: Any, sizes: dict[str, Any]) -> Any:
    """The configuration with these settings, wherever it or a configuration inside it has one of their names."""
    changes = {name: value for name, value in sizes.items() if hasattr(config, name)}
    changes |= {name: resize(part, sizes) for name, part in vars(config).items() if is_dataclass(part)}
    return replace(config, **changes) if changes else config


def check_batch(batch: Batch, holds: dict[str, str], config: Config, optional: Collection[str] = ()) -> None:
    """``ValueError``, in one line, where an entry is missing, of another type, or does not fit the others.

    ``holds`` says what each entry is: ``"Int b t < vocab_size"``. An axis has the same length wherever its letter
    stands; in braces it is a size of the configuration. Whole numbers lie below the size after ``<`` and are at least
    0, or -100, which means that nothing is asked here.
    """
    lengths: dict[str, tuple[int, str]] = {}  # axis → its length, and the entry that set it
    for name, description in holds.items():
        axes, _, below = description.partition(" < ")
        kind, *letters = axes.split()
        if name not in batch:
            if name in optional:
                continue
            raise ValueError(f"The batch has no {name} ({', '.join(letters)}); it has {', '.join(batch) or 'nothing'}.")
        value = batch[name]
        _check_type(name, value, kind, letters)
        for letter, length in zip(letters, value.shape):
            expected, source = lengths.setdefault(letter, _length_of(letter, config) or (length, name))
            if length != expected:
                where = f", as {source} has" if source else ""
                raise ValueError(f"{name} ({', '.join(letters)}) has {length} along {letter}, not {expected}{where}.")
        if below:
            _check_range(name, value, below, size(config, below))
    if not lengths["b"][0]:
        raise ValueError("A batch holds at least one row; this one is empty.")


def _check_type(name: str, value: Tensor, kind: str, letters: list[str]) -> None:
    fits = {"Float": value.is_floating_point(), "Bool": value.dtype == torch.bool, "Int": value.dtype == torch.int64}
    if not fits[kind] or value.ndim != len(letters):
        got = f"{value.dtype} {tuple(value.shape)}"
        raise ValueError(f"{name} is {KINDS[kind]} ({', '.join(letters)}); got {got}.")


def _length_of(letter: str, config: Config) -> tuple[int, str] | None:
    if letter.isdigit():
        return int(letter), ""
    return (size(config, letter[1:-1]), "") if letter[0] == "{" else None


def _check_range(name: str, value: Tensor, below: str, most: int) -> None:
    if ((value >= most) | ((value < 0) & (value != -100))).any():
        raise ValueError(f"{name} are 0 to {most - 1}, as {below} says; got {int(value.min())} to {int(value.max())}.")


def padded_entries(holds: dict[str, str]) -> dict[str, tuple[str, int]]:
    """Each entry that may hold padding → the mask that says where, and the axis on which they agree."""
    found = {}
    for mask in (name for name in holds if name.endswith("mask")):
        axis = holds[mask].split()[2]
        for name, axes in holds.items():
            letters = axes.partition(" < ")[0].split()[1:]
            if name != mask and axis in letters:
                found[name] = mask, letters.index(axis)
    return found
