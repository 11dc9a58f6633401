"""Residual convolutions for pictures: the ResNets of systems that change their strides or activations.

Source: He et al. 2016, "Deep Residual Learning for Image Recognition", section 3.3 and table 1.
"""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn


def rectifier(channels: int) -> nn.Module:
    """ReLU, whatever the number of channels, which ``nn.PReLU`` needs."""
    return nn.ReLU()


class ResidualBlock(nn.Module):
    r"""Two 3 × 3 convolutions beside a shortcut, :math:`y = \phi(x + \mathrm{BN}(W_2\, \phi(\mathrm{BN}(W_1 x))))`.

    ``stride`` is that of the first convolution and of the shortcut, which is a 1 × 1 convolution wherever the shape
    changes. ``dilations`` are those of the first and the second. ``activation`` builds φ from the number of channels.
    """

    def __init__(
        self,
        before: int,
        channels: int,
        *,
        stride: int = 1,
        dilations: tuple[int, int] = (1, 1),
        activation: Callable[[int], nn.Module] = rectifier,
    ):
        super().__init__()
        first, second = dilations
        self.first = nn.Conv2d(before, channels, 3, stride, padding=first, dilation=first, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.first_activation = activation(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=second, dilation=second, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or before != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
        self.activation = activation(channels)

    def forward(self, x: Float[Tensor, "b c height width"]) -> Float[Tensor, "b d rows columns"]:
        branch = self.first_activation(self.first_norm(self.first(x)))
        return self.activation(self.shortcut(x) + self.second_norm(self.second(branch)))


def residual_trunk(
    channels: Sequence[int],
    blocks: int = 2,
    *,
    dilate_last: bool = False,
    activation: Callable[[int], nn.Module] = rectifier,
) -> nn.Sequential:
    """A stage of ``blocks`` for each number of channels; each stage but the first halves the picture.

    With ``dilate_last`` the last stage keeps the size. Its convolutions, except the first, reach twice as far instead.
    64, 128, 256 and 512 channels with 2 blocks are ResNet-18's. Source: Yu et al. 2017, "Dilated Residual Networks",
    section 2, for dilation.
    """
    layers, before = [], channels[0]
    for stage, width in enumerate(channels):
        dilated = dilate_last and stage == len(channels) - 1
        for block in range(blocks):
            stride = 2 if stage and not block and not dilated else 1
            dilations = (1 if not block else 2, 2) if dilated else (1, 1)
            layers.append(ResidualBlock(before, width, stride=stride, dilations=dilations, activation=activation))
            before = width
    return nn.Sequential(*layers)


def initialise_convolutions(module: nn.Module) -> None:
    """For ``module.apply``: weights of convolutions from He's normal distribution for their outputs, biases 0.

    Source: He et al. 2015, "Delving Deep into Rectifiers", section 2.2, backward case, as in torchvision.
    """
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
