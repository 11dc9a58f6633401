"""The last layer of a prediction."""

from torch import nn


def small_linear(width: int, outputs: int) -> nn.Linear:
    """A layer that starts so small that it prefers none of its ``outputs``: a normal of deviation 0.02, biases 0."""
    linear = nn.Linear(width, outputs)
    nn.init.normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
    return linear
