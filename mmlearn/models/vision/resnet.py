"""A residual network, up to its last feature map. Its batch norms are frozen, as in detectors, unless ``norm`` says
else.

Layers have torchvision's names, so ``load_state_dict(resnet50(weights=...).state_dict(), strict=False)`` fills it.
Source: He et al. 2016 (ResNet), section 3.3 and table 1; the 3 × 3 convolution of a bottleneck has the stride, as in
torchvision. Carion et al. 2020 (DETR), section A.4, for frozen norms.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from mmlearn.layers.config import Config


@dataclass(frozen=True)
class ResNetConfig(Config):
    stem_width: int = 64
    widths: tuple[int, ...] = (256, 512, 1024, 2048)  # of each stage; all but the first halve the image
    blocks: tuple[int, ...] = (3, 4, 6, 3)  # of each stage
    bottleneck: bool = True  # three convolutions a block, the middle one of a quarter of the width; else two

    @property
    def stride(self) -> int:
        """Pixels for each position of the feature map, each way."""
        return 2 ** (1 + len(self.widths))

    def without_last(self) -> "ResNetConfig":
        """The same without its last stage, as in OFA."""
        return ResNetConfig(self.stem_width, self.widths[:-1], self.blocks[:-1], self.bottleneck)


RESNETS = {
    "tiny": ResNetConfig(32, (32, 64), (1, 1), bottleneck=False),
    "resnet-18": ResNetConfig(widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2), bottleneck=False),
    "resnet-50": ResNetConfig(),
    "resnet-101": ResNetConfig(blocks=(3, 4, 23, 3)),
    "resnet-152": ResNetConfig(blocks=(3, 8, 36, 3)),
}


class ResNetBlock(nn.Module):
    """Two convolutions, or three with a narrow one between, on a residual path; ReLU after each and after the sum."""

    def __init__(self, before: int, width: int, stride: int, bottleneck: bool, norm: Callable[[int], nn.Module]):
        super().__init__()
        middle = width // 4 if bottleneck else width  # channels between the convolutions
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        widths = [before, middle, middle, width] if bottleneck else [before, width, width]
        self.count = len(kernels)
        for i, kernel in enumerate(kernels):
            step = stride if i == (1 if bottleneck else 0) else 1  # the 3 × 3 convolution halves the image
            convolution = nn.Conv2d(widths[i], widths[i + 1], kernel, step, kernel // 2, bias=False)
            self.add_module(f"conv{i + 1}", convolution)
            self.add_module(f"bn{i + 1}", norm(widths[i + 1]))
        self.relu = nn.ReLU()
        self.downsample = None
        # The identity does not fit where the shape changes: a 1 × 1 convolution replaces it.
        if stride != 1 or before != width:
            shortcut = nn.Conv2d(before, width, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, norm(width))

    def forward(self, x: Float[Tensor, "b c height width"]) -> Float[Tensor, "b d rows columns"]:
        y = x  # (b, c, height, width)
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = self.relu(y) if i < self.count else y
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def resnet(config: ResNetConfig, norm: Callable[[int], nn.Module] | None = None) -> nn.Sequential:
    """(b, 3, height, width) → (b, last of ``widths``, height / ``stride``, width / ``stride``), rounded up.

    A network that learns from scratch takes ``nn.BatchNorm2d`` as its ``norm``. Convolutions start as in He et al.
    2015, by their outputs. ``ValueError`` unless each stage has a width and a number of blocks.
    """
    if norm is None:
        from torchvision.ops import FrozenBatchNorm2d

        norm = FrozenBatchNorm2d
    if len(config.widths) != len(config.blocks) or not config.widths or min(config.blocks) < 1:
        raise ValueError(f"Each stage has a width and its blocks; got widths {config.widths}, blocks {config.blocks}.")
    # The stem: (b, 3, height, width) → (b, stem_width, height / 4, width / 4).
    layers = OrderedDict(
        conv1=nn.Conv2d(3, config.stem_width, 7, 2, 3, bias=False),
        bn1=norm(config.stem_width),
        relu=nn.ReLU(),
        maxpool=nn.MaxPool2d(3, 2, 1),
    )
    before = config.stem_width
    for stage, (width, count) in enumerate(zip(config.widths, config.blocks), 1):
        blocks = []
        for i in range(count):
            stride = 2 if i == 0 and stage > 1 else 1
            blocks.append(ResNetBlock(before, width, stride, config.bottleneck, norm))
            before = width
        layers[f"layer{stage}"] = nn.Sequential(*blocks)
    network = nn.Sequential(layers)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
