"""How a system is asked: without dropout, and without a graph; and its untrained twin, which is asked the same."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def evaluating(system: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; the mode that it was in afterwards, also after an error."""
    training = system.training
    system.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        system.train(training)


def untrained_twin(model: nn.Module, seed: int = 0, *, build: Callable[[], nn.Module] | None = None) -> nn.Module:
    """A model of the same class and ``config`` with weights as they are at the start, drawn from ``seed``.

    ``build`` makes it where its class takes more than a configuration, such as parts that others have trained. It is on
    the same device and in evaluation mode; PyTorch's own random numbers go on as if it had not been built. Raises
    ``ValueError`` for a model without a ``config`` that is given no ``build``.
    """
    if build is None and not hasattr(model, "config"):
        raise ValueError(f"{type(model).__name__} has no config to build another one from; give it as build=….")
    kind: Any = type(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twin: nn.Module = build() if build else kind(model.config)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return twin.to(device).eval()
