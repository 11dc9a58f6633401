"""Unified-IO: its sizes are the paper's but for scores of positions, and patches do not know how far apart they are."""

import pytest
from testing_tools import count_parameters

from mmlearn.models import UnifiedIO, UnifiedIOConfig


@pytest.mark.parametrize(("preset", "millions"), [("small", 71), ("base", 241), ("large", 776), ("xl", 2925)])
def test_sizes_are_near_the_papers(preset, millions):
    # Scores of positions make up 1 of 71 million; of the largest model something more is missing here.
    size = count_parameters(UnifiedIO, UnifiedIOConfig.preset(preset)) / 1e6
    assert 0.96 * millions < size < 1.005 * millions
