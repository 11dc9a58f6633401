"""LiT: the image tower stays exactly as it was, and the text tower learns its names."""

import torch
from testing_tools import close, overfit, pairs
from torch import nn

from mmlearn.layers import TextEncoderConfig
from mmlearn.models.contrastive.lit import LiT, LiTConfig
from mmlearn.recipes.lit import RECIPE

TEXT = TextEncoderConfig(vocab_size=512, max_length=32, width=32, depth=2, num_heads=2)
CONFIG = LiTConfig(image_width=24, text=TEXT)


def tower():
    """With a batch norm and a dropout, which behave otherwise in training mode."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 16, stride=16), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(128, 24)
    )


def test_the_tower_is_locked():
    """No gradient, no training mode, no drift of the batch norm; the text tower has all three."""
    model, batch = LiT(CONFIG, tower()), pairs()
    before = {name: value.clone() for name, value in model.image_tower.state_dict().items()}
    assert model.train() is model
    assert model.training
    assert model.text_encoder.training
    assert not any(module.training for module in model.image_tower.modules())
    assert torch.equal(model.encode_image(batch["image"]), model.encode_image(batch["image"]))
    image = batch["image"].clone().requires_grad_()
    assert not model.encode_image(image).requires_grad
    overfit(model, batch, steps=3)
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("image_tower."), name
        assert parameter.requires_grad != name.startswith("image_tower."), name
    for name, value in model.image_tower.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not model.eval().text_encoder.training


def test_features_computed_beforehand_give_the_same():
    locked, batch = LiT(CONFIG, tower()), pairs()
    ready = LiT(CONFIG, nn.Identity())
    ready.load_state_dict({k: v for k, v in locked.state_dict().items() if not k.startswith("image_tower.")})
    features = locked.image_tower(batch["image"])
    close(ready(features, batch["tokens"]).image_embedding, locked(**batch).image_embedding, 1e-6)
    close(ready.loss(batch | {"image": features})["itc"], locked.loss(batch)["itc"], 1e-6)


def test_presets_fit_the_tower_that_the_recipe_locks():
    for preset in LiTConfig.PRESETS:
        system = RECIPE.make(LiTConfig.preset(preset))
        assert system.image_tower.width == system.text_projection.out_features
