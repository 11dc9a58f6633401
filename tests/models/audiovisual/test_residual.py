"""The trunk is torchvision's ResNet-18, and its dilated last stage sees as far without halving."""

import pytest
import torch
from testing_tools import close
from torch import nn

from mmlearn.models.audiovisual.residual import ResidualBlock, initialise_convolutions, residual_trunk


def test_the_trunk_is_resnet_18():
    """Same weights in the same order, with statistics that are not 0 and 1; outputs and gradients agree."""
    from torchvision.models import resnet18

    published = resnet18(norm_layer=nn.BatchNorm2d)
    stages = nn.Sequential(published.layer1, published.layer2, published.layer3, published.layer4)
    with torch.no_grad():
        for part in [*stages.parameters(), *stages.buffers()]:
            if part.is_floating_point() and part.ndim == 1:
                part.copy_(0.5 + torch.rand_like(part))
    ours = residual_trunk((64, 128, 256, 512))
    ours.load_state_dict(dict(zip(ours.state_dict(), stages.state_dict().values(), strict=True)))
    stages.eval()
    ours.eval()
    x = torch.randn(2, 64, 19, 12)
    got, expected = ours(x), stages(x)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-5)
    got.mean().backward()
    expected.mean().backward()
    for mine, theirs in zip(ours.parameters(), stages.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-3)


def test_a_dilated_stage_keeps_the_size_and_reaches_as_far():
    x = torch.randn(1, 4, 32, 32)
    assert residual_trunk((4, 8, 8), 1)(x).shape[2:] == (8, 8)
    assert residual_trunk((4, 8, 8), 1, dilate_last=True)(x).shape[2:] == (16, 16)
    last = residual_trunk((4, 8), 2, dilate_last=True)[2:]
    assert [(block.first.dilation[0], block.second.dilation[0]) for block in last] == [(1, 2), (2, 2)]
    assert [block.first.stride[0] for block in last] == [1, 1]
    last.eval()
    seen = torch.zeros(1, 4, 31, 31, requires_grad=True)
    last(seen + torch.randn(1, 4, 31, 31))[0, :, 15, 15].sum().backward()
    rows = seen.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert (rows.min(), rows.max()) == (15 - 7, 15 + 7)  # 1 + 2 + 2 + 2


def test_activations_are_built_for_their_channels():
    block = ResidualBlock(4, 6, stride=2, activation=nn.PReLU)
    assert [part.num_parameters for part in block.modules() if isinstance(part, nn.PReLU)] == [6, 6]
    assert block(torch.randn(2, 4, 8, 8)).min() < 0


def test_convolutions_start_with_the_spread_of_their_outputs():
    layer = nn.Conv2d(32, 64, 3)
    layer.apply(initialise_convolutions)
    assert layer.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    close(layer.bias, torch.zeros(64))
