"""A field turns samples into some entries of a batch. It first learns from the data what it must know, if anything.

A recipe names its fields in one line each. A field knows no system, only the names of sizes in a configuration.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmlearn.layers.config import Config

Batch = dict[str, Tensor]
KINDS = {"Float": "floats", "Int": "whole numbers (int64)", "Bool": "booleans"}


@dataclass(frozen=True)
class Field:
    """Some entries of a batch: how samples become tensors, and what random tensors of the same kind look like.

    ``holds`` names the entries and their axes as jaxtyping writes them; a batch may lack those in ``optional``. An
    entry whose name ends in ``mask`` says which positions of the field's other entries are real. ``known`` names the
    attributes that :meth:`fitted` finds out and that a run's folder keeps, and ``chosen`` those that it keeps as well
    where they are set.
    """

    holds: ClassVar[dict[str, str]] = {}
    optional: ClassVar[tuple[str, ...]] = ()
    known: ClassVar[tuple[str, ...]] = ()
    chosen: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[str] = ""  # an attribute that every sample must have
    noun: ClassVar[str] = ""  # what a message calls that; its own name if empty
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
            raise ValueError(f"{system} reads {self.noun or self.needs}, and these samples have none: {self.advice}.")

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
        chosen = {name: value for name in self.chosen if (value := getattr(self, name))}
        return {name: getattr(self, name) for name in self.known} | chosen

    def load(self, folder: Path, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`save`. ``ValueError`` for values that no field can have."""
        names = (*self.known, *(name for name in self.chosen if name in values))
        return replace(self, **{name: _as_tuples(values[name]) for name in names})


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
    own = {field.name for field in fields(config)}
    changes = {name: value for name, value in sizes.items() if name in own}
    changes |= {name: resize(part, sizes) for name, part in vars(config).items() if is_dataclass(part)}
    return replace(config, **changes) if changes else config


def check_batch(batch: Batch, holds: dict[str, str], config: Config, optional: Collection[str] = ()) -> None:
    """``ValueError``, in one line, where an entry is missing, of another type, or does not fit the others.

    ``holds`` says what each entry is: ``"Int b t < vocab_size or -100"``. An axis has the same length wherever its
    letter stands; in braces it is a size of the configuration. Whole numbers are at least 0 and below the size after
    ``<``, or else the number after ``or``, which means that nothing is asked, or that there is nothing, at a position.
    """
    lengths: dict[str, tuple[int, str]] = {}  # axis → its length, and who says so
    for name, description in holds.items():
        kind, axes, below, other = _read(description)
        shape = f"({', '.join(axis.strip('{}') for axis in axes)})"
        if name not in batch:
            if name in optional:
                continue
            raise ValueError(f"The batch has no {name} {shape}; it has {', '.join(batch) or 'nothing'}.")
        value = batch[name]
        _check_type(name, value, kind, shape, len(axes))
        got = tuple(value.shape)
        for axis, length in zip(axes, got):
            fixed = (_number(axis, config), "the configuration") if axis[0] in "{0123456789" else (length, name)
            expected, source = lengths.setdefault(axis, fixed)
            if length != expected:
                because = "" if axis.isdigit() else f", because {axis.strip('{}')} is {expected} in {source}"
                raise ValueError(f"{name} has the shape {got}, which is not {shape}{because}.")
        if not value.numel():
            raise ValueError(f"{name} is empty: it has the shape {got}.")
        if kind == "Int":
            _check_range(name, value, _number(below, config) if below else None, other)


def _read(description: str) -> tuple[str, list[str], str, str]:
    """``"Int b t < v or -100"`` as its type, its axes, the size that numbers are below, and what else they may be."""
    description, _, other = description.partition(" or ")
    axes, _, below = description.partition(" < ")
    kind, *letters = axes.split()
    return kind, letters, below, other


def _number(size_or_digits: str, config: Config) -> int:
    name = size_or_digits.strip("{}")
    return int(name) if name.isdigit() else size(config, name)


def _check_type(name: str, value: Any, kind: str, shape: str, axes: int) -> None:
    if isinstance(value, Tensor):
        fits = {
            "Float": value.is_floating_point(),
            "Int": value.dtype == torch.int64,
            "Bool": value.dtype == torch.bool,
        }
        if fits[kind] and value.ndim == axes:
            return
    got = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    raise ValueError(f"{name} must be {KINDS[kind]} {shape}; got {got}.")


def _check_range(name: str, value: Tensor, below: int | None, other: str) -> None:
    wrong = value < 0 if below is None else (value < 0) | (value >= below)
    if other:
        wrong &= value != int(other)
    if wrong.any():
        allowed = ("0 or more" if below is None else f"from 0 to {below - 1}") + (f", or {other}" if other else "")
        raise ValueError(f"The numbers in {name} must be {allowed}; got {int(value[wrong][0])}.")


def padded_entries(holds: dict[str, str]) -> dict[str, tuple[str, int]]:
    """Each entry that may hold padding → the mask that says where, and the axis on which they agree."""
    axes = {name: _read(description)[1] for name, description in holds.items()}
    found = {}
    for mask in (name for name in holds if name.endswith("mask")):
        positions = axes[mask][1]
        found |= {name: (mask, of.index(positions)) for name, of in axes.items() if name != mask and positions in of}
    return found
