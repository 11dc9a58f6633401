"""Swin: stages halve the grid and double the width, and grids that windows do not fill are told."""

import pytest
import torch
from testing_tools import refused

from mmlearn.layers import TransformerConfig
from mmlearn.models.audio.swin import Swin, SwinBlock, SwinConfig


def grid(b=2, rows=8, columns=8, width=12):
    return torch.randn(b, rows, columns, width)


def block(num_heads, shift=0, dropout=0.0):
    return SwinBlock(TransformerConfig(12, 1, num_heads, dropout=dropout), 4, shift)


def test_stages_halve_the_grid_and_double_the_width():
    swin = Swin(SwinConfig(8, (2, 2, 1), (1, 2, 2), 4), (16, 32))
    assert swin(grid(2, 16, 32, 8)).shape == (2, 4, 8, 32)
    blocks = [module for module in swin.modules() if isinstance(module, SwinBlock)]
    assert [(layer.window, layer.shift) for layer in blocks] == [(4, 0), (4, 2), (4, 0), (4, 2), (4, 0)]
    small = Swin(SwinConfig(8, (2, 2), (1, 1), 4), (4, 4))  # one window, then fewer tokens than a window
    blocks = [module for module in small.modules() if isinstance(module, SwinBlock)]
    assert [(layer.window, layer.shift) for layer in blocks] == [(4, 0), (4, 0), (2, 0), (2, 0)]
    assert small(grid(1, 4, 4, 8)).shape == (1, 2, 2, 16)


def test_activations_keep_their_size_at_the_start():
    torch.manual_seed(0)
    out = Swin(SwinConfig(64, (2, 4), (4, 8), 4), (16, 16))(grid(2, 16, 16, 64))
    assert 0.7 < out.std().item() < 2


def test_grids_that_windows_do_not_fill_are_told(unchecked):
    refused("Windows of 4 × 4 tokens do not fill a grid of 8 × 6", block(2), grid(1, 8, 6))
    for wrong, says in [
        (dict(grid=(12, 12), window=8), "Stage 0 has 12 × 12 tokens"),
        (dict(grid=(8, 12), window=4), "Stage 1 has 4 × 6 tokens"),
        (dict(grid=(5, 5), window=5), r"Stage 1 has 2.5 × 2.5 tokens, which windows of 5 × 5 do not fill"),
        (dict(grid=(1, 1), window=1), "Stage 1 has 0.5 × 0.5 tokens"),
    ]:
        refused(says, Swin, SwinConfig(8, (1, 1), (1, 1), wrong["window"]), wrong["grid"])
    with pytest.raises(ValueError, match=r"Each stage has a depth and a number of heads; got \(2, 2\) and \(1,\)"):
        Swin(SwinConfig(8, (2, 2), (1,), 4), (8, 8))
    refused("width 12 is no multiple of num_heads 5", block, 5)
