"""The activations of an MLP, by the names that configurations use."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def quick_gelu(x: Tensor) -> Tensor:
    r"""A cheap GELU, :math:`x\, \sigma(1.702 x)`, as in OpenAI's CLIP. Source: Hendrycks & Gimpel 2016."""
    return F.silu(1.702 * x) / 1.702  # one fused kernel where a sigmoid and a product would be two


def gelu_tanh(x: Tensor) -> Tensor:
    r"""GELU by its tanh approximation, in SigLIP's and GPT-2's weights. Source: Hendrycks & Gimpel 2016, section 2."""
    return F.gelu(x, approximate="tanh")


def squared_relu(x: Tensor) -> Tensor:
    r"""The square of what is above 0, as in Flamingo. Source: So et al. 2021 (Primer), section 3."""
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "silu": F.silu,
    "squared_relu": squared_relu,
}


def activation_called(name: str) -> Callable[[Tensor], Tensor]:
    """The activation of this name. ``ValueError`` for another."""
    if name not in ACTIVATIONS:
        raise ValueError(f"Unknown activation {name!r}; choose from {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]
