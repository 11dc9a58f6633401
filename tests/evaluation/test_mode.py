"""A system is asked in evaluation mode, without a graph, and left as it was, whatever happens."""

import pytest
import torch
from torch import nn

from mmlearn.evaluation import evaluating


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_as_before_also_after_an_error(training):
    system = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train(training)

    def ask(fails):
        with evaluating(system):
            assert not any(part.training for part in system.modules())
            assert not system(torch.ones(1, 2)).requires_grad
            if fails:
                raise KeyError("no such name")

    ask(fails=False)
    assert all(part.training is training for part in system.modules())
    with pytest.raises(KeyError):
        ask(fails=True)
    assert all(part.training is training for part in system.modules())
    assert torch.is_grad_enabled()
