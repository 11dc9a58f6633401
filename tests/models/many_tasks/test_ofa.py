"""OFA: how a picture enters, and where its positions are."""

import math

import torch
from testing_tools import close, refused
from torch import nn

from mmlearn.evaluation.eval_mode import evaluating
from mmlearn.layers.positions import harmonic_grid
from mmlearn.models.many_tasks.ofa import OFA, OFAConfig


def test_harmonic_grid_by_hand():
    positions = harmonic_grid(3, 8)
    for row in range(3):
        for column in range(3):
            y, x = ((number + 0.5) / 3 * math.pi / 2 for number in (row, column))
            of = [[math.sin(a), math.sin(2 * a), math.cos(a), math.cos(2 * a)] for a in (y, x)]
            close(positions[3 * row + column], torch.tensor(of[0] + of[1]))
    refused("a multiple of 4, got 6", harmonic_grid, 3, 6)


def test_positions_of_a_row_or_of_a_column_have_half_in_common():
    for side in (4, 8, 24):
        positions = harmonic_grid(side, 64).view(side, side, 2, 32)
        close(positions[:, :, 0], positions[:, :1, 0].expand(-1, side, -1))
        close(positions[:, :, 1], positions[:1, :, 1].expand(side, -1, -1))
        flat = positions.flatten(2).flatten(0, 1)
        assert torch.cdist(flat, flat).fill_diagonal_(9).min() > 0.5


def test_what_is_seen_is_normed_before_its_position_is_added():
    torch.manual_seed(0)
    config = OFAConfig.tiny()
    own = nn.Conv2d(3, config.backbone.widths[-1], 8, 8)
    system, image = OFA(config, own), torch.randn(2, 3, 64, 64)
    with evaluating(system):
        linear = system.image_projection[0]
        content = linear(own(image).flatten(2).mT)
        seen = (content - content.mean(-1, keepdim=True)) / (content.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        close(system.embed_image(image), seen + harmonic_grid(8, config.width))
    refused("Pictures are 64 × 64", OFA(config, nn.Conv2d(3, 64, 4, 4)).embed_image, image)


def test_the_norms_of_its_residual_network_learn():
    system = OFA(OFAConfig.tiny())
    norm = system.backbone.bn1
    before = norm.running_mean.clone()
    system.train().embed_image(torch.randn(4, 3, 64, 64)).sum().backward()
    assert not torch.equal(before, norm.running_mean)
    assert norm.weight.grad is not None
