"""Every system: what is wrong is told in one line, and what is unusual but right gives finite numbers."""

import dataclasses
import re

import pytest
import torch
from testing_tools import pairs
from torch import nn

from mmlearn.models import SYSTEMS, system

pytestmark = pytest.mark.usefixtures("unchecked")
TEXT = [name for name in SYSTEMS if name != "vit"]
IMAGE = [name for name in SYSTEMS if name != "bert"]
CHANGES = {"bert": dict(masked_language_head=True, next_sentence_head=True), "vit": dict(num_classes=5)}


def build(name):
    model, config = system(name)
    config = dataclasses.replace(config.tiny(), **CHANGES.get(name, {}))
    if name != "lit":
        return model(config)
    return model(config, nn.Sequential(nn.Conv2d(3, 1280, 16, stride=64), nn.Flatten()))


def batch_of(name, b=4):
    """A batch for this system."""
    batch = pairs(b)
    if name == "bert":
        labels = {"token_label": batch["tokens"], "next_label": torch.arange(b) % 2}
        return {"tokens": batch["tokens"], "mask": batch["mask"]} | labels
    return {"image": batch["image"], "label": torch.arange(b) % 5} if name == "vit" else batch


def outputs_of(model, batch):
    inputs = {key: rows for key, rows in batch.items() if key in ("image", "tokens", "mask")}
    return [value for value in model(**inputs) if value is not None]


def finite_loss(model, batch):
    loss = sum(model.loss(batch).values())
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert loss.isfinite()
    return loss.item()


def refused(model, batch, says):
    with pytest.raises(ValueError, match=says) as error:
        model.loss(batch)
    assert "\n" not in str(error.value)


def test_every_system_is_here():
    assert set(TEXT) | set(IMAGE) == set(SYSTEMS)
    assert set(TEXT) & set(IMAGE) >= {"clip", "siglip", "filip", "lit"}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_batch_of_one(name):
    loss = finite_loss(build(name), batch_of(name, 1))
    if name in ("clip", "filip", "lit"):
        assert loss == 0  # there is nothing to choose from


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_batch_of_none(name):
    """Its embeddings are none; a mean over it would be NaN."""
    model, batch = build(name), {key: rows[:0] for key, rows in batch_of(name).items()}
    refused(model, batch, "at least one")
    assert len(outputs_of(model, batch)[0]) == 0


@pytest.mark.parametrize("name", TEXT)
@pytest.mark.parametrize("rows", [slice(1), slice(None)])
def test_a_mask_without_any_real_token(name, rows):
    """Of one text, or of all."""
    model, batch = build(name), batch_of(name)
    batch["mask"][rows] = False
    assert all(value.isfinite().all() for value in outputs_of(model, batch))
    finite_loss(model, batch)


@pytest.mark.parametrize("name", TEXT)
@pytest.mark.parametrize("token", [512, 2**40, -1])
def test_a_token_outside_the_vocabulary(name, token):
    model, batch = build(name), batch_of(name)
    batch["tokens"][1, 2] = token
    refused(model, batch, rf"^There is no token {token}: the vocabulary of this model has 512, from 0\.$")


@pytest.mark.parametrize("name", TEXT)
def test_a_text_longer_than_the_context(name):
    model, batch = build(name), batch_of(name)
    for key in ("tokens", "mask", "token_label"):
        if key in batch:
            batch[key] = batch[key].repeat(1, 3)
    refused(model, batch, "^36 tokens are more than the 32 positions of this model; shorten the text")


@pytest.mark.parametrize("name", [name for name in IMAGE if name != "lit"])  # whose tower is the user's own
@pytest.mark.parametrize("shape", [(4, 1, 64, 64), (4, 4, 64, 64), (4, 64, 64, 3), (3, 64, 64)])
def test_pictures_with_other_channels(name, shape):
    refused(build(name), batch_of(name) | {"image": torch.zeros(shape)}, re.escape(f"got torch.float32 {shape}"))


@pytest.mark.parametrize("name", [name for name in IMAGE if name != "lit"])
def test_pictures_of_another_size(name):
    """Larger ones are read, by interpolated positions; smaller than a patch they cannot be."""
    model, batch = build(name), batch_of(name)
    finite_loss(model, batch | {"image": torch.randn(4, 3, 80, 48)})
    refused(model, batch | {"image": torch.zeros(4, 3, 7, 64)}, r"^A picture of \(7, 64\) pixels is smaller than one")
    refused(model, batch | {"image": batch["image"].to(torch.uint8)}, r"float tensors .*; got torch.uint8")


@pytest.mark.parametrize("name", ["clip", "siglip", "filip", "lit"])
def test_more_texts_than_pictures(name):
    batch = batch_of(name)
    refused(build(name), batch | {"image": batch["image"][:3]}, "got 3 images and 4 texts")
