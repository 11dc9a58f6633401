"""ViT: the loss is that of the right label, pictures are learned, and the sizes are the published ones."""

import dataclasses
import math

import pytest
import torch
from testing_tools import pairs, refused

from mmlearn.models.vision.vit import ViT, ViTConfig

TINY = dataclasses.replace(ViTConfig.tiny(), num_classes=5)


def labelled(seed=0):
    return {"image": pairs(seed=seed)["image"], "label": torch.arange(8) % 5}


def test_loss_starts_at_ln_classes_exactly_and_is_that_of_the_right_label():
    model, batch = ViT(TINY), labelled()
    assert model.loss(batch)["classification"].item() == pytest.approx(math.log(5), abs=1e-6)
    torch.nn.init.normal_(model.classifier.weight)
    logits = model(batch["image"]).logits.tolist()
    each = [math.log(sum(math.exp(z) for z in row)) - row[k] for row, k in zip(logits, batch["label"].tolist())]
    assert model.loss(batch)["classification"].item() == pytest.approx(sum(each) / 8, abs=1e-5)


def test_without_a_classifier_there_are_features_and_no_loss():
    model = ViT(ViTConfig.tiny())
    assert model(labelled()["image"]).logits is None
    refused("set num_classes", model.loss, labelled())
