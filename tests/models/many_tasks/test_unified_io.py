"""Unified-IO: its sizes are the paper's but for scores of places, and patches do not know how far apart they are."""

import pytest
import torch
from testing_tools import count_parameters, refused

from mmlearn.models import UnifiedIO, UnifiedIOConfig


@pytest.mark.parametrize(("preset", "millions"), [("small", 71), ("base", 241), ("large", 776), ("xl", 2925)])
def test_sizes_are_near_the_papers(preset, millions):
    # Scores of places make up 1 of 71 million; of the largest model something more is missing here.
    size = count_parameters(UnifiedIO, UnifiedIOConfig.preset(preset)) / 1e6
    assert 0.96 * millions < size < 1.005 * millions


def test_a_target_that_is_too_long_is_told():
    system = UnifiedIO(UnifiedIOConfig.tiny())
    image, tokens = torch.randn(1, 3, 64, 64), torch.ones(1, 4, dtype=torch.long)
    refused("65 tokens are more than the 64 of a target", system, image, tokens, torch.ones(1, 65, dtype=torch.long))
