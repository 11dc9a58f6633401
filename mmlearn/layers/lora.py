"""LoRA: a frozen layer and beside it a product of two thin matrices, which learns in its place.

Source: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
"""

import math
from collections.abc import Collection, Mapping
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Layer = TypeVar("Layer", bound=nn.Module)


def low_rank(
    x: Float[Tensor, "*n d"], down: Float[Tensor, "r d"], up: Float[Tensor, "k r"], alpha: float
) -> Float[Tensor, "*n k"]:
    r"""The change that two thin matrices make: :math:`\frac{\alpha}{r} B A x`, with A ``down`` and B ``up``.

    The product of A and x comes first, so that no matrix of the layer's size is made. Source: Hu et al. 2022,
    equation 3.
    """
    return alpha / len(down) * F.linear(F.linear(x, down), up)


class LoRALinear(nn.Module):
    r"""A linear layer that stays as it is, and a change of low rank that is learned.

    .. math:: h = W x + b + \frac{\alpha}{r} B A x, \quad A \in \mathbb{R}^{r \times d},\;
       B \in \mathbb{R}^{k \times r}, \quad B = 0 \text{ at the start}

    So at first it says exactly what the layer said. Raises ``ValueError`` for a rank below 1 or above what the layer
    has. Source: Hu et al. 2022, equation 3.
    """

    def __init__(self, linear: nn.Linear, rank: int = 8, alpha: float = 16.0):
        super().__init__()
        if not 1 <= rank <= min(linear.in_features, linear.out_features):
            raise ValueError(
                f"rank is from 1 to {min(linear.in_features, linear.out_features)}, as many as the layer has of "
                f"features, not {rank}."
            )
        self.linear, self.alpha = linear.requires_grad_(False), alpha
        weight = linear.weight.float()  # of a layer in bf16 the change learns in float32: its steps are small
        self.down = nn.Parameter(weight.new_empty(rank, linear.in_features))
        self.up = nn.Parameter(weight.new_zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... k"]:
        return self.linear(x) + low_rank(x, self.down.to(x), self.up.to(x), self.alpha)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """One linear layer that says the same, to rounding: nothing of the change costs time any more."""
        self.linear.weight += low_rank(
            torch.eye(self.linear.in_features).to(self.down), self.down, self.up, self.alpha
        ).T
        return self.linear


def add_lora(
    model: nn.Module, rank: int = 8, alpha: float = 16.0, layers: Collection[str] = ("query", "value")
) -> list[str]:
    """Freeze a model, and let a change of low rank learn in every linear layer whose own name is one of ``layers``.

    Returns their dotted names. Raises ``ValueError`` where no layer is called so, and as :class:`LoRALinear` does.
    Source: Hu et al. 2022, section 4.2 and table 5, where queries and values are best.
    """
    found = _of_kind(model, nn.Linear, layers)
    if not found:
        raise ValueError(f"{type(model).__name__} has no linear layer called {' or '.join(sorted(layers))}.")
    model.requires_grad_(False)
    for name, layer in found.items():
        model.set_submodule(name, LoRALinear(layer, rank, alpha))
    return list(found)


def merge_lora(model: nn.Module) -> None:
    """Put the changes that :func:`add_lora` added into the layers' own weights, and leave plain layers."""
    for name, layer in _of_kind(model, LoRALinear).items():
        model.set_submodule(name, layer.merged())


def lora_weights(model: nn.Module) -> set[str]:
    """The names of the thin matrices that :func:`add_lora` added, as they are in ``model.state_dict()``."""
    return {f"{name}.{thin}" for name in _of_kind(model, LoRALinear) for thin in ("down", "up")}


def named_with_lora(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights from before :func:`add_lora` by the names that they have since, and the thin matrices as they are."""
    layers, own = _of_kind(model, LoRALinear), model.state_dict()
    names = {f"{name}.{last}": f"{name}.linear.{last}" for name in layers for last in ("weight", "bias")}
    return {names.get(name, name): x for name, x in weights.items()} | {name: own[name] for name in lora_weights(model)}


def _of_kind(model: nn.Module, kind: type[Layer], names: Collection[str] | None = None) -> dict[str, Layer]:
    """The parts of this kind, or of them those whose own names are these."""
    parts = {name: part for name, part in model.named_modules() if isinstance(part, kind)}
    return {name: part for name, part in parts.items() if names is None or name.split(".")[-1] in names}
