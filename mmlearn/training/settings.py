"""Settings of a system by their names, as in ``--set text.depth=4``: read, put into a configuration, looked up."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmlearn.data.fields import size
from mmlearn.layers.config import Config
from mmlearn.suggestions import suggest


def with_settings(config: Config, settings: Mapping[str, Any], name: str) -> Config:
    """The configuration with these values wherever it has their names, checked as those of a file are.

    ``depth`` is that of all towers, ``text.depth`` that of one.
    """
    bare: dict[str, None] = {}
    known: dict[str, None] = {}

    def changed(part: dict[str, Any], above: str = "") -> dict[str, Any]:
        found = {}
        for key, value in part.items():
            whole = above + key
            if isinstance(value, dict):
                found[key] = changed(value, f"{whole}.")
            else:
                bare[key] = known[whole] = None
                found[key] = settings.get(whole, settings.get(key, value))
        return found

    values = changed(config.to_dict())
    for key in settings:
        if key not in bare | known:
            raise ValueError(f"{name} has no setting {key!r}; {suggest(key, bare | known)}.")
    return type(config).from_dict(values)


def setting(config: Config, name: str) -> Any:
    """The value of a setting, whose ``name`` may say of which part."""
    *parts, last = name.split(".")
    for part in parts:
        config = getattr(config, part)
    return size(config, last)


def read_settings(texts: Sequence[str]) -> dict[str, Any]:
    """``["queue_size=0"]`` as ``{"queue_size": 0}``; values as JSON has them. ``ValueError`` for anything else.

    ``queue-size``, as options of a command are spelled, is the same.
    """
    settings = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if not (name and equals):
            raise ValueError(f"A setting is name=value, such as queue_size=4096; got {text!r}.")
        try:
            settings[name] = json.loads(value)
        except (ValueError, RecursionError):
            settings[name] = value
    return settings
