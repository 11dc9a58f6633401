"""The frozen image tower that comes with the package."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mmlearn.data.packaged.archives import reading
from mmlearn.models.vision.backbone import Backbone, BackboneConfig, PositionBackbone


def load_backbone(input_size: int = 128) -> Backbone:
    """MobileNetV2 (2.2 million parameters, float32) as trained on ImageNet-1K, from the packaged archive.

    The weights are stored as float16, which moves its features by less than 1%.

    Raises ``FileNotFoundError`` or ``ValueError`` for an archive that is missing or damaged, and ``ValueError`` for an
    ``input_size`` below 32 pixels. Source: Sandler et al. 2018, "MobileNetV2", table 2; weights of torchvision.
    """
    return Backbone(_features(), input_size)


def load_positions(config: BackboneConfig) -> PositionBackbone:
    """The same network as a tower of positions, for systems that look at parts of a picture. Errors as above.

    Or the tower that is ``published`` by the configuration: errors as of :func:`~mmlearn.load_pretrained`.
    """
    if config.published:
        from mmlearn.pretrained.tower import load_tower

        return load_tower(config)
    return PositionBackbone(_features(), config)


def _features() -> nn.Module:
    from safetensors.torch import load_file
    from torchvision.models import mobilenet_v2

    features = mobilenet_v2(weights=None).features
    with reading("backbone", "mobilenet_v2.safetensors") as path:
        features.load_state_dict(load_file(path))
    _fold_norms(features.eval())
    return features.to(memory_format=torch.channels_last)  # which is faster on a CPU


def _fold_norms(module: nn.Module) -> None:
    """Multiply each frozen batch norm into the convolution before it, which changes nothing but the time it takes."""
    for child in module.children():
        _fold_norms(child)
    layers = list(module.children())
    for i, (convolution, norm) in enumerate(pairwise(layers)):
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            module[i], module[i + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
