"""MISA and MulT: a sequence without anything real says nothing, whatever stands in it."""

import pytest
import torch
from batches import talk

from mmlearn.data.fields import resize
from mmlearn.recipes.discovery import find_recipe

SIZES = dict(vocab_size=50, text_width=12, audio_width=10, video_width=3 * 4 * 4, width=16, lstm_width=8)


@pytest.mark.parametrize("name", ["misa", "mult"])
@pytest.mark.parametrize(("mask", "key"), [("mask", "tokens"), ("mel_mask", "mel"), ("video_mask", "video")])
def test_a_sequence_without_anything_real_says_nothing(name, mask, key):
    recipe, batch = find_recipe(name), talk()
    model = recipe.system(resize(recipe.config.tiny(), SIZES))
    none = batch | {mask: torch.zeros_like(batch[mask])}
    losses = model.loss(none)
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    if (name, key) != ("misa", "tokens"):
        other = torch.randint_like(batch[key], 50) if key == "tokens" else torch.randn_like(batch[key])
        assert torch.equal(model.loss(none | {key: other})["task"], losses["task"])
