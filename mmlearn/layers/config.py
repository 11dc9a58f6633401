"""Configurations: frozen dataclasses with published presets, to JSON and back."""

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from mmlearn.names import choices


@dataclass(frozen=True)
class Config:
    """What a system is built from. Subclasses add fields, and ``PRESETS``: a name → the fields that differ."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {}

    @classmethod
    def preset(cls, name: str) -> Self:
        """The configuration of this published name, or ``"tiny"`` for two CPU cores. ``ValueError`` if unknown."""
        if name not in cls.PRESETS:
            raise ValueError(f"{cls.__name__} has no preset {name!r}; {choices(name, cls.PRESETS)}.")
        return cls(**cls.PRESETS[name])

    @classmethod
    def tiny(cls) -> Self:
        """The preset for two CPU cores."""
        return cls.preset("tiny")

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dictionaries, as JSON holds them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`. ``ValueError`` for a field that does not exist."""
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        types = typing.get_type_hints(cls)
        names = {field.name for field in dataclasses.fields(cls)}
        if unknown := set(values) - names:
            raise ValueError(
                f"{cls.__name__} has no field {', '.join(sorted(unknown))}; it has {', '.join(sorted(names))}."
            )
        nested = {
            name: types[name].from_dict(value) if isinstance(value, dict) else value for name, value in values.items()
        }
        return cls(**nested)
