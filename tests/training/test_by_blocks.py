"""A system counted by three shallow ones is what it is counted as a whole."""

from dataclasses import replace

import pytest
from testing_tools import refused

from mmlearn.recipes.discovery import find_recipe
from mmlearn.training.by_blocks import count_by_blocks
from mmlearn.training.counting import count


@pytest.mark.parametrize(("name", "precision"), [("clip", "no"), ("siglip", "bf16")])
def test_it_is_what_is_counted_as_a_whole(name, precision):
    recipe = find_recipe(name)
    config = recipe.tiny()
    config = replace(config, image=replace(config.image, depth=4), text=replace(config.text, depth=3))
    options = dict(precision=precision, text_length=12)
    found, whole = count_by_blocks(recipe, config, **options), count(recipe, config, **options)
    for part in ("parameters", "trained", "state", "block", "sample", "towers"):
        assert getattr(found, part) == getattr(whole, part), part
    for part in ("linear", "square"):
        assert getattr(found.flops, part) == pytest.approx(getattr(whole.flops, part), rel=1e-12)
        assert getattr(found.saved.total, part) == pytest.approx(getattr(whole.saved.total, part), rel=1e-12)
    assert found.passing == pytest.approx(whole.passing, rel=0.05)


def test_a_system_without_two_towers():
    recipe = find_recipe("gpt2")
    refused("GPT2 has no towers image and text", count_by_blocks, recipe, recipe.tiny())
