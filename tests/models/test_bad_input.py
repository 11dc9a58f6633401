"""Every system: what is wrong is told in one line, and what is unusual but right gives finite numbers."""

import dataclasses
import re

import pytest
import torch
from testing_tools import HEARING, pairs
from torch import nn

from mmlearn.models import SYSTEMS as EVERY
from mmlearn.models import system

ALL_LABELS = ("token_label", "match_label")
# A picture without its batch axis has as many rows as it has channels, which is no longer as many as texts.
OTHER_SHAPE = r"got torch.float32 {}|got 3 (images|and 4)"
REGION_INPUTS = ("regions", "boxes", "region_mask")
pytestmark = pytest.mark.usefixtures("unchecked")
SYSTEMS = [name for name in EVERY if name not in HEARING]
TEXT = [name for name in SYSTEMS if name != "vit"]
REGIONS = ("lxmert", "uniter", "vilbert", "visual-bert", "vl-bert")
HARD_NEGATIVES = ("albef", "blip")  # which compare every pair of a batch
IMAGE = [name for name in SYSTEMS if name not in ("bert", *REGIONS)]
CHANGES = {"bert": dict(language_head=True, next_sentence_head=True), "vit": dict(num_classes=5)}


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
    if name == "vit":
        return {"image": batch["image"], "label": torch.arange(b) % 5}
    if name in REGIONS:
        return {"tokens": batch["tokens"], "mask": batch["mask"]} | regions_of(b) | labels_of(batch)
    labels = {"albef": ("token_label",), "pixel-bert": ALL_LABELS, "vilt": ALL_LABELS}.get(name, ())
    return batch | {label: labels_of(batch)[label] for label in labels}


def regions_of(b, p=5):
    """Regions for the tiny presets; the last of every second picture is padding."""
    generator = torch.Generator().manual_seed(b)
    corner = torch.rand(b, p, 2, generator=generator) * 0.6
    return {
        "regions": torch.randn(b, p, 216, generator=generator),
        "boxes": torch.cat([corner, corner + 0.3], -1),
        "region_mask": torch.arange(p) < p - torch.arange(b)[:, None] % 2,
        "region_classes": torch.rand(b, p, 144, generator=generator).softmax(-1),
    }


def labels_of(batch):
    """The second token of each text is to be guessed, and every second pair does not match."""
    second = torch.arange(batch["tokens"].shape[1]) == 1
    label = batch["tokens"].masked_fill(~second, -100)
    return {"token_label": label, "match_label": 1 - torch.arange(len(label)) % 2}


def outputs_of(model, batch):
    inputs = {key: rows for key, rows in batch.items() if key in ("image", "tokens", "mask", *REGION_INPUTS)}
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
    assert set(TEXT) | set(IMAGE) | HEARING == set(EVERY)
    assert set(TEXT) & set(IMAGE) >= {"clip", "siglip", "filip", "lit"}


@pytest.mark.parametrize("name", HARD_NEGATIVES)
def test_a_batch_of_one_has_no_hard_negative(name):
    refused(build(name), batch_of(name, 1), "^In a batch of 1 .* no negative exists")


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name not in HARD_NEGATIVES])
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
@pytest.mark.parametrize("token", [514, 2**40, -1])
def test_a_token_outside_the_vocabulary(name, token):
    model, batch = build(name), batch_of(name)
    batch["tokens"][1, 2] = token
    size = 514 if name == "blip" else 512  # with the two that say which role the text has
    refused(model, batch, rf"^There is no token {token}: the vocabulary of this model has {size}, from 0\.$")


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
    refused(build(name), batch_of(name) | {"image": torch.zeros(shape)}, OTHER_SHAPE.format(re.escape(str(shape))))


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


@pytest.mark.parametrize("name", REGIONS)
def test_regions_that_cannot_be(name):
    model, batch = build(name), batch_of(name)
    box = batch["boxes"].clone()
    box[1, 0] = torch.tensor([0.5, 0.1, 0.4, 0.3])  # inverted
    refused(model, batch | {"boxes": box}, r"^Box 0 of picture 1 is \(0.5, 0.1, 0.4, 0.3\); left < right")
    box[1, 0] = torch.tensor([0.5, 0.1, 0.9, 1.2])  # outside
    refused(model, batch | {"boxes": box}, "from 0 to 1 as shares of the picture")
    refused(model, batch | {"boxes": batch["boxes"][:, :3]}, "Pad pictures with fewer regions")
    none = batch["region_mask"].clone()
    none[2] = False
    refused(model, batch | {"region_mask": none}, "^Picture 2 of the batch has no region")
    refused(model, batch | {name: batch[name][:, :0] for name in (*REGION_INPUTS, "region_classes")}, "has no region")
    refused(model, batch | {"regions": batch["regions"][..., :7]}, "216")
    refused(
        model,
        batch | {name: batch[name][:3] for name in REGION_INPUTS},
        "^To 4 texts belong regions",
    )


@pytest.mark.parametrize("name", REGIONS)
def test_what_padded_regions_hold_is_not_looked_at(name):
    model, batch = build(name).eval(), batch_of(name)
    before = sum(model.loss(batch).values())
    padding = ~batch["region_mask"]
    batch["regions"][padding] = 9.0
    batch["boxes"][padding] = torch.tensor([2.0, 2.0, 1.0, 1.0])
    assert torch.equal(sum(model.loss(batch).values()), before)
