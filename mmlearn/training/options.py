"""How a training runs, as opposed to what it learns: options that few change."""

from collections.abc import Sequence
from dataclasses import dataclass


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
