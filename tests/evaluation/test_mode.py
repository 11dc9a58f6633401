"""A system is asked in evaluation mode, without a graph, and left as it was, whatever happens."""

import pytest
import torch
from torch import nn

from mmlearn.evaluation import evaluating, untrained_twin
from mmlearn.recipes.discovery import find_recipe


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


def test_an_untrained_twin_is_as_its_config_starts_and_disturbs_nothing():
    recipe = find_recipe("clip")
    torch.manual_seed(7)
    fresh = recipe.make(recipe.tiny()).eval()
    torch.manual_seed(1)
    trained = recipe.make(recipe.tiny())
    for parameter in trained.parameters():
        parameter.data.add_(1.0)
    before = torch.random.get_rng_state()
    twin = untrained_twin(trained, seed=7)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not twin.training
    for (name, weight), same in zip(twin.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert torch.equal(weight, same), name


def test_a_model_without_a_config_has_no_twin():
    with pytest.raises(ValueError, match="Linear has no config"):
        untrained_twin(nn.Linear(2, 2))
    one, other = (untrained_twin(nn.Linear(2, 2), seed, build=lambda: nn.Linear(3, 1)) for seed in (0, 1))
    assert one.in_features == 3
    assert not torch.equal(one.weight, other.weight)
