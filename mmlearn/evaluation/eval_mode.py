"""How a system is asked: without dropout, and without a graph."""

from collections.abc import Iterator
from contextlib import contextmanager

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
