"""A system counted by three shallow ones is what it is counted as a whole."""

from dataclasses import replace

import pytest
from testing_tools import refused

from mmlearn.recipes.discovery import find_recipe
from mmlearn.training.by_blocks import count_by_blocks
from mmlearn.training.counting import count


def test_it_is_what_is_counted_as_a_whole():
    recipe = find_recipe("clip")
    config = recipe.tiny()
    config = replace(config, image=replace(config.image, depth=4), text=replace(config.text, depth=3))
    options = dict(precision="bf16", text_length=12)
    found, whole = count_by_blocks(recipe, config, **options), count(recipe, config, **options)
    for part in ("parameters", "trained", "state", "block", "outside", "sample", "towers"):
        assert getattr(found, part) == getattr(whole, part), part
    pairs = {"flops": (found.flops, whole.flops)}
    pairs |= {name: (getattr(found.saved, name), getattr(whole.saved, name)) for name in whole.saved._fields}
    for name, (one, other) in pairs.items():
        known, wanted = ({part: x for part, x in vars(each).items() if x is not None} for each in (one, other))
        assert known == pytest.approx(wanted, rel=1e-12), name  # without rows, where all compute the whole matrix
    assert found.passing == pytest.approx(whole.passing, rel=0.05)


def test_a_system_without_two_towers():
    recipe = find_recipe("gpt2")
    refused("GPT2 has no towers image and text", count_by_blocks, recipe, recipe.tiny())
