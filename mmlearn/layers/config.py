"""Configurations: frozen dataclasses with published presets, to JSON and back."""

import dataclasses
import math
import re
import types
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from mmlearn.suggestions import suggest

ABOVE_0 = re.compile(r"(^|_)(width|heads|max_length|patch_size|image_size|stride|temperature|norm_epsilon)$")
EITHER_SIGN = re.compile(r"^bias$|(^|_)log_")
# No picture has more pixels, and no system more blocks.
MOST = {"halvings": 30, "depth": 1000, "layers": 1000, "blocks": 1000}
WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", types.NoneType: "null"}


@dataclass(frozen=True)
class Config:
    """What a system is built from. Subclasses add fields, and ``PRESETS``: a name → the fields that differ."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {}

    @classmethod
    def preset(cls, name: str) -> Self:
        """The configuration of this published name, or ``"tiny"`` for two CPU cores. ``ValueError`` if unknown."""
        if name not in cls.PRESETS:
            raise ValueError(f"{cls.__name__} has no preset {name!r}; {suggest(name, cls.PRESETS)}.")
        values = cls.PRESETS[name]
        return cls.from_dict(values) if any(isinstance(value, dict) for value in values.values()) else cls(**values)

    @classmethod
    def tiny(cls) -> Self:
        """The preset for two CPU cores."""
        return cls.preset("tiny")

    def narrowed(self, depth: int = 2) -> Self:
        """The same shape in small: every width of 64 and more divided by 8, and no more blocks than ``depth``.

        Channels are widths, too. Heads and kernels stay, and so do blocks that the configuration names
        by their numbers.
        """
        changes: dict[str, Any] = {}
        depth = 1000 if any(name.endswith("connections") for name in vars(self)) else depth
        for name, value in vars(self).items():
            if isinstance(value, Config):
                changes[name] = value.narrowed(depth)
            elif name.endswith("width") and value and value >= 64:
                changes[name] = value // 8
            elif name.endswith(("widths", "channels")) and isinstance(value, tuple):
                changes[name] = tuple(width // 8 if width >= 64 else width for width in value)
            elif name.endswith(("depth", "layers", "blocks")) and isinstance(value, int) and value:
                changes[name] = min(value, depth)
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dictionaries, as JSON holds them.

        A part that may be of several kinds, such as a language model, says its ``kind`` where that is not the default.
        """
        values = dataclasses.asdict(self)
        for name, default in _parts(type(self)).items():
            if isinstance(part := getattr(self, name), Config):
                kind = {} if type(part) is default else {"kind": type(part).__name__}
                values[name] = kind | part.to_dict()
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`.

        Raises ``ValueError`` for a field that does not exist, and for a value of another type or sign than its field's:
        people edit the files that this comes from.
        """
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        hints = typing.get_type_hints(cls)
        names = {field.name for field in dataclasses.fields(cls)}
        if unknown := set(values) - names:
            wrong, known = ", ".join(sorted(unknown)), ", ".join(sorted(names))
            raise ValueError(f"{cls.__name__} has no field {wrong}; it has {known}.")
        needed = [field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING]
        if missing := [name for name in needed if name not in values]:
            raise ValueError(f"{cls.__name__} needs {', '.join(missing)} as well.")
        for name, value in values.items():
            hint = hints[name]
            if isinstance(hint, type) and issubclass(hint, Config) and isinstance(value, dict):
                kind = _kind(value, hint, _parts(cls)[name])
                values[name] = kind.from_dict({key: value[key] for key in value if key != "kind"})
            elif not _fits(value, hint):
                raise ValueError(f"{cls.__name__}: {name} is {_in_words(hint)}, not {value!r:.60}.")
            elif not EITHER_SIGN.search(name) and not _sign_fits(name, value):
                least = "above 0" if ABOVE_0.search(name) else "at least 0"
                raise ValueError(f"{cls.__name__}: {name} is {least}, not {value!r:.60}.")
            elif (most := MOST.get(name.rpartition("_")[2])) and any(one > most for one in _numbers(value)):
                raise ValueError(f"{cls.__name__}: {name} is at most {most:,}, not {value!r:.60}.")
        return cls(**values)


def _parts(cls: type[Config]) -> dict[str, Any]:
    """The fields that may hold a configuration → its kind where none is said: that of the default, or of the field."""
    hints = typing.get_type_hints(cls)
    return {
        field.name: type(field.default) if isinstance(field.default, Config) else hints[field.name]
        for field in dataclasses.fields(cls)
    }


def _kind(values: dict[str, Any], hint: type[Config], default: type[Config]) -> type[Config]:
    """The configuration that ``values`` are of. ``ValueError`` for a kind that cannot stand here or is not imported."""
    known, name = {each.__name__: each for each in _kinds(hint)}, values.get("kind", default.__name__)
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"There is no kind {name!r:.60} of {hint.__name__}; {suggest(str(name), known)}.")
    return known[name]


def _kinds(cls: type[Config]) -> list[type[Config]]:
    """A configuration and all that inherit it, where they have been imported: recipes import what they build."""
    return [cls, *(kind for each in cls.__subclasses__() for kind in _kinds(each))]


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a field's type."""
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            return False
        parts = parts[:1] * len(value) if parts[-1] is ... else parts
        return len(parts) == len(value) and all(map(_fits, value, parts))
    if parts:
        return any(_fits(value, part) for part in parts)
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, hint)


def _sign_fits(name: str, value: Any) -> bool:
    return all(one > 0 if ABOVE_0.search(name) else one >= 0 for one in _numbers(value))


def _numbers(value: Any) -> list[int | float]:
    return [one for one in (value if isinstance(value, tuple) else [value]) if isinstance(one, int | float)]


def _in_words(hint: Any) -> str:
    """A field's type as a reader knows it."""
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        count = "" if parts[-1] is ... else f"{len(parts)} times "
        return f"a list of {count}{_in_words(parts[0])}"
    return " or ".join(map(_in_words, parts)) if parts else WORDS.get(hint, f"the settings of a {hint.__name__}")
