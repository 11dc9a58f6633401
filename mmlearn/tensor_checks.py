"""When values of tensors may be looked at."""

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor


def values_are_readable(x: Tensor) -> bool:
    """Whether a check may ask for values of ``x``: where they lie on a CPU, and not while a graph is compiled.

    A look at a GPU's tensor waits for everything that the GPU has yet to compute; a compiled graph cannot branch; and
    a fake tensor, by which costs are counted, has no values.
    """
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and type(x) in (Tensor, nn.Parameter)


def has_values(x: Tensor) -> bool:
    """Whether this is no fake tensor, by which costs are counted: that has a shape and no values."""
    return not isinstance(x, FakeTensor)
