"""ViT: the class token is read, pictures are learned, and the sizes are the published ones."""

import dataclasses
import math

import pytest
import torch
from testing_tools import assert_rows_are_independent, close, count_parameters, overfit, pairs

from mmlearn.models.vision.vit import ViT, ViTConfig

TINY = dataclasses.replace(ViTConfig.tiny(), num_classes=5)


def labelled(seed=0):
    return {"image": pairs(seed=seed)["image"], "label": torch.arange(8) % 5}


@pytest.mark.parametrize("hidden_head", [False, True])
def test_the_class_token_is_what_the_picture_is(hidden_head):
    model, image = ViT(dataclasses.replace(TINY, hidden_head=hidden_head)), pairs()["image"]
    torch.nn.init.normal_(model.classifier.weight)
    output = model(image)
    assert output.tokens.shape == (8, 65, 64)
    first = output.tokens[:, 0]
    expected = torch.tanh(first @ model.head[0].weight.T + model.head[0].bias) if hidden_head else first
    close(output.representation, expected)
    close(output.logits, expected @ model.classifier.weight.T + model.classifier.bias)


def test_every_patch_reaches_the_class_token():
    model, image = ViT(ViTConfig.tiny()), pairs()["image"][:1]
    before = model(image).representation
    for row, column in ((0, 0), (3, 5), (7, 7)):
        changed = image.clone()
        changed[..., 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 1
        assert not torch.allclose(model(changed).representation, before, atol=1e-4)


def test_rows_do_not_depend_on_each_other():
    model = ViT(TINY)
    assert_rows_are_independent(lambda image: model(image).tokens, pairs()["image"])


def test_loss_starts_at_ln_classes_exactly_and_is_that_of_the_right_label():
    model, batch = ViT(TINY), labelled()
    assert model.loss(batch)["classification"].item() == pytest.approx(math.log(5), abs=1e-6)
    torch.nn.init.normal_(model.classifier.weight)
    logits = model(batch["image"]).logits.tolist()
    each = [math.log(sum(math.exp(z) for z in row)) - row[k] for row, k in zip(logits, batch["label"].tolist())]
    assert model.loss(batch)["classification"].item() == pytest.approx(sum(each) / 8, abs=1e-5)


def test_one_batch_is_learned_by_heart():
    model, batch = ViT(TINY), labelled()
    assert overfit(model, batch, steps=60, learning_rate=3e-3) < 0.02
    assert model(batch["image"]).logits.argmax(-1).tolist() == batch["label"].tolist()


def test_without_a_classifier_there_are_features_and_no_loss():
    model = ViT(ViTConfig.tiny())
    assert model(labelled()["image"]).logits is None
    with pytest.raises(ValueError, match="set num_classes"):
        model.loss(labelled())


@pytest.mark.parametrize(
    ("preset", "count"), [("B/16", 85_798_656), ("B/32", 87_455_232), ("L/16", 303_301_632), ("H/14", 630_764_800)]
)
def test_presets_have_the_published_size(preset, count):
    """Without a classifier; one of 1,000 classes adds 769,000 to B."""
    config = ViTConfig.preset(preset)
    assert count_parameters(ViT, config) == count
    width = config.image.width
    assert count_parameters(ViT, dataclasses.replace(config, num_classes=1000)) == count + 1000 * (width + 1)


def test_unknown_preset():
    with pytest.raises(ValueError, match=r"no preset 'S/16'; did you mean 'L/16'\? choose from tiny, B/16, "):
        ViTConfig.preset("S/16")
