"""How weights start where a configuration says so, and what is drawn at each step."""

import dataclasses
import re

import pytest
import torch
from torch import nn

from mmlearn.data.fields import resize
from mmlearn.recipes.discovery import find_recipe

SYSTEMS = ("blip", "lxmert", "oscar", "pixel-bert", "uniter", "vilbert", "vilt", "vinvl", "visual-bert", "vl-bert")
SYSTEMS += ("ernie-vil", "kvl-bert", "uc2")


@pytest.mark.parametrize("name", SYSTEMS)
def test_weights_spread_as_the_configuration_says(name):
    """All but pictures' own, which start as in a vision transformer, and those for answers, at 0.02 always."""
    parts = {"blip": r"online\.text\.", "vilt": "(?!image_embedding|transformer)"}.get(name, "")
    recipe = find_recipe(name)
    for std in (0.02, 0.125):
        torch.manual_seed(0)
        model = recipe.system(resize(recipe.config.tiny(), {"initial_std": std, "answers": 7}))
        layers = {key: part for key, part in model.named_modules() if isinstance(part, nn.Linear | nn.Embedding)}
        own = {key: part.weight for key, part in layers.items() if re.match(parts, key)}
        assert len(own) > (6 if name == "vilt" else 20)
        for key, weight in own.items():
            expected = 0.02 if key.startswith("answer_head") else std
            assert weight.std().item() == pytest.approx(0.88 * expected, rel=0.2)  # what a cut at two deviations leaves
            assert weight.abs().max() <= 2 * expected


@pytest.mark.parametrize("name", SYSTEMS)
def test_only_presets_of_the_published_width_start_as_published(name):
    config = find_recipe(name).config
    presets = {preset: config.preset(preset) for preset in config.PRESETS}
    texts = {preset: each.text if name == "blip" else each for preset, each in presets.items()}
    tiny = texts.pop("tiny")
    assert tiny.initial_std == tiny.width**-0.5
    assert {each.initial_std for each in texts.values()} == {0.02}


@pytest.mark.parametrize("name", ["av-hubert", "decoar2", "wav2vec2"])
def test_what_is_drawn_goes_by_seed_and_step_alone(name):
    recipe, real = find_recipe(name), torch.arange(40) < 40 - 6 * torch.arange(4)[:, None]
    config = recipe.config.tiny()
    model = recipe.system(config)
    first = model.draw(real)
    torch.manual_seed(99)
    assert all(torch.equal(one, two) for one, two in zip(first, model.draw(real)))
    model.after_step()
    resumed, other = recipe.system(config), recipe.system(dataclasses.replace(config, seed=1))
    resumed.load_state_dict(model.state_dict())
    assert all(torch.equal(one, two) for one, two in zip(resumed.draw(real), model.draw(real)))
    for one, later, elsewhere in zip(first, model.draw(real), other.draw(real)):
        if one.ndim > 1:  # of a number a row all may be as before
            assert not torch.equal(one, later)
            assert not torch.equal(one, elsewhere)
