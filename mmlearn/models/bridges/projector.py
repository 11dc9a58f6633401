"""What stands between an image tower and a language model: parts that are frozen, and a projector that is not."""

from typing import Any, Self

from jaxtyping import Float
from torch import Tensor, nn

from mmlearn.layers.activations import activation_called


class FrozenParts(nn.Module):
    """A system with pretrained parts that may be frozen.

    A frozen part is in evaluation mode while the rest is trained, so that no dropout is applied in it.
    """

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.freeze_modes()
        return self

    def freeze_modes(self) -> None:
        """Put each part into training or evaluation mode: stages of training decide which parts are frozen."""
        for part in self.children():
            if trained := [parameter.requires_grad for parameter in part.parameters()]:
                part.train(self.training and any(trained))


class Projector(nn.Module):
    r"""A matrix, :math:`W x + b`, or two, :math:`W_2\, \phi(W_1 x + b_1) + b_2`, the first of them to ``width``.

    ``config`` has ``projector_layers``, ``projector_activation`` and ``projector_bias``. ``ValueError`` for other than
    one or two layers, and for an unknown activation. Source: Liu et al. 2023 (LLaVA), section 4.1, equation 1, for one;
    Liu et al. 2024 (LLaVA-1.5), section 3.3, for two.
    """

    def __init__(self, config: Any, inputs: int, width: int, outputs: int):
        super().__init__()
        layers, bias = config.projector_layers, config.projector_bias
        if layers not in (1, 2):
            raise ValueError(f"projector_layers is 1 or 2, not {layers}.")
        self.first = nn.Linear(inputs, width if layers == 2 else outputs, bias=bias)
        self.second = nn.Linear(width, outputs, bias=bias) if layers == 2 else None
        self.activation = activation_called(config.projector_activation)

    def forward(self, x: Float[Tensor, "b n inputs"]) -> Float[Tensor, "b n outputs"]:
        return self.first(x) if self.second is None else self.second(self.activation(self.first(x)))
