"""How a training runs, as opposed to what it learns: options that few change; and a system's settings, as typed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmlearn.data.fields import size
from mmlearn.layers.config import Config
from mmlearn.suggestions import suggest


@dataclass(frozen=True)
class TrainingOptions:
    """What :func:`~mmlearn.training.fit` and ``mmlearn train`` take besides what most trainings set.

    The learning rate falls by its ``decay`` (``"linear"`` or ``"cosine"``); the gradient is cut to ``max_norm``; one
    step takes ``accumulate`` batches. With ``lengths``, one number a sample, batches hold samples of similar length.

    ``precision`` is ``"no"`` (float32), ``"bf16"`` or ``"fp16"``; ``workers`` other processes prepare batches;
    ``compile`` may name a backend of ``torch.compile``. In less memory and more time ``recompute`` or ``chunk`` train
    equally well (:mod:`mmlearn.training.memory`), and so do processes that ``shard`` the weights.

    There is a checkpoint after every ``checkpoint_every`` steps; with ``resume`` a run goes on from the newest and ends
    bit for bit as one never stopped. Metrics are fetched from the device, and told, every ``log_every`` steps;
    ``tensorboard`` logs them there too. ``ema`` is the decay of an average of the weights, written beside them.
    """

    decay: str = "linear"
    max_norm: float = 1.0
    accumulate: int = 1
    lengths: Sequence[int] | None = None
    precision: str = "no"
    workers: int = 0
    compile: bool | str = False
    recompute: bool = False
    chunk: int | None = None
    shard: bool = False
    checkpoint_every: int = 200
    resume: bool = False
    log_every: int = 1
    tensorboard: bool = False
    ema: float | None = None

    def __post_init__(self) -> None:
        at_least(1, accumulate=self.accumulate, checkpoint_every=self.checkpoint_every, log_every=self.log_every)


def at_least(least: int, **numbers: int) -> None:
    """``ValueError`` where one of these numbers is smaller."""
    for name, number in numbers.items():
        if number < least:
            raise ValueError(f"{name} is at least {least}, got {number}.")


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
